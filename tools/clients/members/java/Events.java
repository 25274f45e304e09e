/** Events: JSON, one object a line, to the standard output. */
final class Events {
    private Events() { }

    static synchronized void say(String event, String fields) {
        double now = System.currentTimeMillis() / 1000.0;
        System.out.printf(java.util.Locale.ROOT, "{\"t\": %.3f, \"event\": \"%s\", %s}%n", now, event, fields);
        System.out.flush();
    }

    static String quoted(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < ' ') {
                out.append(' ');
            } else {
                out.append(c);
            }
        }
        return out.append('"').toString();
    }
}
