package clicktally.bench;

import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/** Reads the clicks of a raw record into one instance. Object reuse is on, so no operator downstream keeps it. */
final class FlinkClickReader implements KafkaRecordDeserializationSchema<FlinkClick> {
    private transient ClickFields fields;
    private transient FlinkClick click;

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<FlinkClick> out) {
        if (fields == null) {
            fields = new ClickFields();
            click = new FlinkClick();
            Measurement.firstClick();
        }
        fields.open(record.value());
        int clicks = 0;
        while (fields.next()) {
            click.clickId = fields.clickId();
            click.adId = fields.adId();
            click.eventTimeMs = fields.eventTimeMs();
            out.collect(click);
            clicks++;
        }
        Measurement.EVENTS.add(clicks);
    }

    @Override
    public TypeInformation<FlinkClick> getProducedType() {
        return TypeInformation.of(FlinkClick.class);
    }
}
