import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

/** An idempotent producer: Apache Kafka's own client. Options and events are those of ../../producers/confluent.py. */
public final class Producer {
    private static volatile boolean ending;

    private Producer() { }

    public static void main(String[] arguments) throws Exception {
        Options options = new Options(arguments[2]);
        String text = "org.apache.kafka.common.serialization.StringSerializer";
        Properties settings = new Properties();
        settings.putAll(Map.of("bootstrap.servers", arguments[0], "acks", "all", "enable.idempotence", "true",
            "key.serializer", text, "value.serializer", text, "delivery.timeout.ms", "120000"));
        KafkaProducer<String, String> producer = new KafkaProducer<>(settings);
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            ending = true;
            try {
                main.join();
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
            }
        }));
        int partitions = options.number("partitions", 6);
        int rate = options.number("rate", 60);
        int count = options.number("count", Integer.MAX_VALUE);
        for (int number = 0; number < count && !ending; number++) {
            String value = options.text("prefix", "") + number;
            producer.send(new ProducerRecord<>(arguments[1], number % partitions, null, value), (place, failure) -> {
                String record = "\"value\": " + Events.quoted(value);
                if (failure == null) {
                    Events.say("acked", record + ", \"partition\": " + place.partition() + ", \"offset\": " + place.offset());
                } else {
                    Events.say("refused", record + ", \"text\": " + Events.quoted(failure.toString()));
                }
            });
            Thread.sleep(1000 / rate);
        }
        producer.close();
        Events.say("ended", "\"in_order\": true");
    }
}
