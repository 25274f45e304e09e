// A member of a consumer group, and an idempotent producer: franz-go. Options and events of the member are those of
// ../events.py, those of the producer stand in ../producer.py.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

var output sync.Mutex

// say prints an event: a line of JSON.
func say(event string, fields map[string]any) {
	line := map[string]any{"t": float64(time.Now().UnixMicro()) / 1e6, "event": event}
	for name, value := range fields {
		line[name] = value
	}
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	output.Lock()
	defer output.Unlock()
	os.Stdout.Write(append(text, '\n'))
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "member or producer?")
		os.Exit(2)
	}
	run := map[string]func([]string) error{"member": runMember, "producer": runProducer}[os.Args[1]]
	if err := run(os.Args[2:]); err != nil {
		say("error", map[string]any{"text": err.Error()})
		os.Exit(1)
	}
	say("ended", nil)
}
