package main

import (
	"context"
	"encoding/json"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const batchRecords = 100

type options struct {
	SessionMs   int    `json:"session_ms"`
	HeartbeatMs int    `json:"heartbeat_ms"`
	Style       string `json:"style"`
	Instance    string `json:"instance"`
	CommitMs    int    `json:"commit_ms"`
	Metadata    string `json:"metadata"`
	Show        bool   `json:"show"`
}

// member reads its share of a topic. All of it happens between polls: rebalances are blocked while a batch is worked on.
type member struct {
	topic       string
	options     options
	client      *kgo.Client
	open        map[int32]kgo.EpochOffset // what is yet to be committed
	committedAt time.Time
}

func runMember(arguments []string) error {
	m := &member{topic: arguments[2], open: map[int32]kgo.EpochOffset{}}
	m.options = options{SessionMs: 6000, HeartbeatMs: 1000, Style: "default"}
	if err := json.Unmarshal([]byte(arguments[3]), &m.options); err != nil {
		return err
	}
	settings := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(arguments[0], ",")...),
		kgo.ConsumerGroup(arguments[1]),
		kgo.ConsumeTopics(m.topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(time.Duration(m.options.SessionMs) * time.Millisecond),
		kgo.HeartbeatInterval(time.Duration(m.options.HeartbeatMs) * time.Millisecond),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(m.assigned),
		kgo.OnPartitionsRevoked(m.revoked),
		kgo.OnPartitionsLost(m.lost),
		kgo.OnOffsetsFetched(m.found),
	}
	switch m.options.Style {
	case "range":
		settings = append(settings, kgo.Balancers(kgo.RangeBalancer()))
	case "cooperative":
		settings = append(settings, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	}
	if m.options.Instance != "" {
		settings = append(settings, kgo.InstanceID(m.options.Instance))
	}
	client, err := kgo.NewClient(settings...)
	if err != nil {
		return err
	}
	m.client = client
	m.read()
	return nil
}

func (m *member) read() {
	ending, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	for ending.Err() == nil {
		poll, cancel := context.WithTimeout(ending, 100*time.Millisecond)
		fetches := m.client.PollRecords(poll, batchRecords)
		cancel()
		fetches.EachError(func(_ string, partition int32, err error) {
			if err != context.DeadlineExceeded && err != context.Canceled {
				say("error", map[string]any{"text": err.Error(), "partition": partition})
			}
		})
		fetches.EachRecord(func(r *kgo.Record) {
			say("record", map[string]any{"partition": r.Partition, "offset": r.Offset, "value": string(r.Value)})
			m.open[r.Partition] = kgo.EpochOffset{Epoch: r.LeaderEpoch, Offset: r.Offset + 1}
		})
		if time.Since(m.committedAt) >= time.Duration(m.options.CommitMs)*time.Millisecond {
			m.commit(m.partitions())
		}
		m.client.AllowRebalance()
	}
	m.commit(m.partitions())
	m.client.CloseAllowingRebalance()
}

func (m *member) partitions() []int32 {
	all := make([]int32, 0, len(m.open))
	for partition := range m.open {
		all = append(all, partition)
	}
	return all
}

func (m *member) commit(partitions []int32) {
	taken := map[int32]kgo.EpochOffset{}
	offsets := map[string]int64{}
	for _, partition := range partitions {
		if at, is := m.open[partition]; is {
			taken[partition] = at
			offsets[strconv.Itoa(int(partition))] = at.Offset
		}
	}
	if len(taken) == 0 {
		return
	}
	m.committedAt = time.Now()
	noted := kgo.PreCommitFnContext(context.Background(), func(request *kmsg.OffsetCommitRequest) error {
		for t := range request.Topics {
			for p := range request.Topics[t].Partitions {
				request.Topics[t].Partitions[p].Metadata = &m.options.Metadata
			}
		}
		return nil
	})
	var failure error
	uncommitted := map[string]map[int32]kgo.EpochOffset{m.topic: taken}
	m.client.CommitOffsetsSync(noted, uncommitted,
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error) {
			failure = err
			if err != nil {
				return
			}
			for _, topic := range answer.Topics {
				for _, partition := range topic.Partitions {
					if refused := kerr.ErrorForCode(partition.ErrorCode); refused != nil {
						failure = refused
					}
				}
			}
		})
	if failure != nil {
		say("failed", map[string]any{"offsets": offsets, "text": failure.Error()})
		return
	}
	for partition := range taken {
		delete(m.open, partition)
	}
	say("committed", map[string]any{"offsets": offsets})
}

func (m *member) assigned(_ context.Context, _ *kgo.Client, places map[string][]int32) {
	say("assigned", map[string]any{"partitions": listed(places[m.topic])})
}

func (m *member) revoked(_ context.Context, _ *kgo.Client, places map[string][]int32) {
	m.commit(places[m.topic])
	m.forget(places[m.topic])
	say("revoked", map[string]any{"partitions": listed(places[m.topic])})
}

func (m *member) lost(_ context.Context, _ *kgo.Client, places map[string][]int32) {
	m.forget(places[m.topic])
	say("lost", map[string]any{"partitions": listed(places[m.topic])})
}

func (m *member) forget(partitions []int32) {
	for _, partition := range partitions {
		delete(m.open, partition)
	}
}

// found tells what the group had stored.
func (m *member) found(_ context.Context, _ *kgo.Client, answer *kmsg.OffsetFetchResponse) error {
	if !m.options.Show {
		return nil
	}
	for _, group := range answer.Groups {
		for _, topic := range group.Topics {
			for _, p := range topic.Partitions {
				text := ""
				if p.Metadata != nil {
					text = *p.Metadata
				}
				say("found", map[string]any{"partition": p.Partition, "found": []any{p.Offset, text, p.LeaderEpoch}})
			}
		}
	}
	return nil
}

// listed is never null in JSON.
func listed(partitions []int32) []int32 {
	return append([]int32{}, partitions...)
}
