package clicktally.bench;

/**
 * What a Flink job puts out: the clicks of one ad in one minute of event time.
 *
 * @param minute minutes since the Unix epoch
 */
public record AdMinuteClicks(long adId, long minute, long clicks) {}
