package clicktally.bench;

/** The topic that all peers read. */
final class RawClicks {
    static final String TOPIC = "raw_clicks";

    private RawClicks() {}

    /** The broker as {@code host:port}, from the environment. */
    static String brokers() {
        String brokers = System.getenv("CLICKTALLY_KAFKA");
        if (brokers == null || brokers.isEmpty()) {
            throw new IllegalArgumentException("set CLICKTALLY_KAFKA to host:port of the Kafka to read");
        }
        return brokers;
    }
}
