package clicktally.bench;

import java.time.Duration;
import java.util.Locale;

/**
 * What a Flink job is asked for on its command line.
 *
 * @param checkpointInterval how often all state is made durable, exactly once
 */
record FlinkOptions(StateBackend stateBackend, boolean isDeduplicated, Duration checkpointInterval) {
    enum StateBackend {
        HEAP("hashmap"),
        ROCKSDB("rocksdb");

        /** Flink's name of it. */
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

    /** As results name the job. */
    String who() {
        return "flink-" + stateBackend.name().toLowerCase(Locale.ROOT)
                + (isDeduplicated ? "-dedup" : "") + "-" + checkpointInterval.toSeconds() + "s";
    }
}
