package clicktally.bench;

import java.time.Duration;
import java.util.Locale;

/**
 * The options of a Flink job on its command line.
 *
 * @param checkpointInterval how often all state is made durable, exactly once
 */
record FlinkOptions(StateBackend stateBackend, boolean isDeduplicated, Duration checkpointInterval) {
    enum StateBackend {
        HEAP("hashmap"),
        ROCKSDB("rocksdb");

        /** Flink's name of this state backend. */
        final String flinkName;

        StateBackend(String flinkName) {
            this.flinkName = flinkName;
        }
    }

    private static final String CHECKPOINT = "--checkpoint-s=";

    static FlinkOptions parse(String[] arguments) {
        StateBackend stateBackend = StateBackend.HEAP;
        boolean isDeduplicated = false;
        Duration checkpointInterval = Duration.ofSeconds(1);
        for (String argument : arguments) {
            switch (argument) {
                case "--state=heap" -> stateBackend = StateBackend.HEAP;
                case "--state=rocksdb" -> stateBackend = StateBackend.ROCKSDB;
                case "--dedup" -> isDeduplicated = true;
                default -> {
                    if (!argument.startsWith(CHECKPOINT)) {
                        throw new IllegalArgumentException("unknown argument " + argument
                                + "; known are --state=heap|rocksdb --dedup " + CHECKPOINT + "SECONDS");
                    }
                    checkpointInterval = Duration.ofSeconds(Long.parseLong(argument.substring(CHECKPOINT.length())));
                }
            }
        }
        return new FlinkOptions(stateBackend, isDeduplicated, checkpointInterval);
    }

    /** The name of the job in the results. */
    String who() {
        return "flink-" + stateBackend.name().toLowerCase(Locale.ROOT)
                + (isDeduplicated ? "-dedup" : "") + "-" + checkpointInterval.toSeconds() + "s";
    }
}
