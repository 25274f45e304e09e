import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;

/** A program's options: an object in JSON. */
final class Options {
    private final JsonNode given;

    Options(String json) throws java.io.IOException {
        given = new ObjectMapper().readTree(json);
    }

    int number(String name, int otherwise) {
        return given.path(name).asInt(otherwise);
    }

    String text(String name, String otherwise) {
        return given.path(name).asText(otherwise);
    }

    boolean flag(String name) {
        return given.path(name).asBoolean(false);
    }
}
