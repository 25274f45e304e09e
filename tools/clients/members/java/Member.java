import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;

/** A member of a consumer group: Apache Kafka's own client. Options and events are those of ../events.py. */
public final class Member implements ConsumerRebalanceListener {
    private final String topic;
    private final Options options;
    private final KafkaConsumer<String, String> consumer;
    private final Map<TopicPartition, OffsetAndMetadata> open = new HashMap<>();
    private long committedAt;
    private volatile boolean ending;

    private Member(String bootstrap, String group, String topic, Options options) {
        this.topic = topic;
        this.options = options;
        String text = "org.apache.kafka.common.serialization.StringDeserializer";
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("group.id", group);
        settings.put("key.deserializer", text);
        settings.put("value.deserializer", text);
        settings.put("session.timeout.ms", options.number("session_ms", 6000));
        settings.put("heartbeat.interval.ms", options.number("heartbeat_ms", 1000));
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("max.poll.records", "100");
        String assignors = "org.apache.kafka.clients.consumer.";
        switch (options.text("style", "default")) {
            case "range" -> settings.put("partition.assignment.strategy", assignors + "RangeAssignor");
            case "cooperative" -> settings.put("partition.assignment.strategy", assignors + "CooperativeStickyAssignor");
            default -> { }
        }
        if (!options.text("instance", "").isEmpty()) {
            settings.put("group.instance.id", options.text("instance", ""));
        }
        consumer = new KafkaConsumer<>(settings);
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> places) {
        Events.say("assigned", partitions(places));
        if (!options.flag("show")) {
            return;
        }
        consumer.committed(Map.copyOf(places.stream().collect(Collectors.toMap(p -> p, p -> p))).keySet())
            .forEach((place, stored) -> {
                String found = stored == null ? "[-1, \"\", -1]" : "[" + stored.offset() + ", "
                    + Events.quoted(stored.metadata()) + ", " + stored.leaderEpoch().orElse(-1) + "]";
                Events.say("found", "\"partition\": " + place.partition() + ", \"found\": " + found);
            });
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> places) {
        commit(places);
        open.keySet().removeAll(places);
        Events.say("revoked", partitions(places));
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> places) {
        open.keySet().removeAll(places);
        Events.say("lost", partitions(places));
    }

    private void commit(Collection<TopicPartition> places) {
        Map<TopicPartition, OffsetAndMetadata> taken = new HashMap<>(open);
        taken.keySet().retainAll(places);
        if (taken.isEmpty()) {
            return;
        }
        committedAt = System.nanoTime();
        String offsets = "\"offsets\": {" + taken.entrySet().stream()
            .map(entry -> "\"" + entry.getKey().partition() + "\": " + entry.getValue().offset())
            .collect(Collectors.joining(", ")) + "}";
        try {
            consumer.commitSync(taken);
            taken.forEach(open::remove);
            Events.say("committed", offsets);
        } catch (RuntimeException error) {
            Events.say("failed", offsets + ", \"text\": " + Events.quoted(error.toString()));
        }
    }

    private void run() {
        Events.say("started", "\"pid\": " + ProcessHandle.current().pid());
        consumer.subscribe(List.of(topic), this);
        while (!ending) {
            for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
                Events.say("record", "\"partition\": " + record.partition() + ", \"offset\": " + record.offset()
                    + ", \"value\": " + Events.quoted(record.value()));
                OffsetAndMetadata next =
                    new OffsetAndMetadata(record.offset() + 1, record.leaderEpoch(), options.text("metadata", ""));
                open.put(new TopicPartition(topic, record.partition()), next);
            }
            if (System.nanoTime() - committedAt >= options.number("commit_ms", 0) * 1_000_000L) {
                commit(Map.copyOf(open).keySet());
            }
        }
        commit(Map.copyOf(open).keySet());
        consumer.close();
        Events.say("ended", "\"in_order\": true");
    }

    private static String partitions(Collection<TopicPartition> places) {
        String numbers = places.stream().map(p -> Integer.toString(p.partition())).collect(Collectors.joining(", "));
        return "\"partitions\": [" + numbers + "]";
    }

    public static void main(String[] arguments) throws Exception {
        Member member = new Member(arguments[0], arguments[1], arguments[2], new Options(arguments[3]));
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            member.ending = true;
            try {
                main.join();
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
            }
        }));
        member.run();
    }
}
