package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type load struct {
	Partitions int    `json:"partitions"`
	Rate       int    `json:"rate"`
	Count      int    `json:"count"`
	Prefix     string `json:"prefix"`
}

func runProducer(arguments []string) error {
	load := load{Partitions: 6, Rate: 60, Count: math.MaxInt}
	if err := json.Unmarshal([]byte(arguments[2]), &load); err != nil {
		return err
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(arguments[0], ",")...),
		kgo.DefaultProduceTopic(arguments[1]),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RecordDeliveryTimeout(2*time.Minute),
		kgo.ProducerBatchCompression(kgo.NoCompression()), // its default, snappy, is not for kafkajs to read
	) // idempotent and acks=all unless told otherwise
	if err != nil {
		return err
	}
	ending, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	for number := 0; number < load.Count && ending.Err() == nil; number++ {
		value := fmt.Sprint(load.Prefix, number)
		record := &kgo.Record{Partition: int32(number % load.Partitions), Value: []byte(value)}
		client.Produce(context.Background(), record, func(r *kgo.Record, err error) {
			if err != nil {
				say("refused", map[string]any{"value": value, "text": err.Error()})
				return
			}
			say("acked", map[string]any{"value": value, "partition": r.Partition, "offset": r.Offset})
		})
		time.Sleep(time.Second / time.Duration(load.Rate))
	}
	defer client.Close()
	return client.Flush(context.Background())
}
