// Command tesseralog runs a Tessera log in a folder under a witness policy, for a bounded while.
//
// It appends the entries that stdin's JSON object names, round by round, waits each time until Tessera
// has published a checkpoint that commits to them (which it does only once the policy is satisfied),
// and writes the published checkpoints to stdout. Where a round's deadline passes without one, the
// answer says so under "error" beside what had been published before.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

const (
	checkpointInterval = 100 * time.Millisecond
	maxEntries         = 10_000
	maxDeadline        = time.Minute
)

type request struct {
	Dir             string     `json:"dir"`              // the log's folder; made where absent
	SignerKey       string     `json:"signer_key"`       // PRIVATE+KEY+…
	Policy          string     `json:"policy"`           // witness policy text
	Rounds          [][]string `json:"rounds"`           // entries to append, round by round
	DeadlineSeconds float64    `json:"deadline_seconds"` // for each round
}

type response struct {
	Checkpoints []string `json:"checkpoints"`
	Error       string   `json:"error,omitempty"`
}

func main() {
	answer := response{Checkpoints: []string{}}
	if err := run(&answer); err != nil {
		answer.Error = err.Error()
	}
	_ = json.NewEncoder(os.Stdout).Encode(answer)
}

func run(answer *response) error {
	var req request
	if err := json.NewDecoder(os.Stdin).Decode(&req); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	deadline := min(time.Duration(req.DeadlineSeconds*float64(time.Second)), maxDeadline)
	signer, err := note.NewSigner(req.SignerKey)
	if err != nil {
		return fmt.Errorf("signer: %w", err)
	}
	policy, err := tessera.NewWitnessGroupFromPolicy([]byte(req.Policy))
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	driver, err := posix.New(ctx, posix.Config{Path: req.Dir})
	if err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	options := tessera.NewAppendOptions().
		WithCheckpointSigner(signer).
		WithBatching(maxEntries, 10*time.Millisecond).
		WithCheckpointInterval(checkpointInterval).
		WithWitnesses(policy, &tessera.WitnessOptions{Timeout: deadline})
	appender, _, reader, err := tessera.NewAppender(ctx, driver, options)
	if err != nil {
		return fmt.Errorf("appender: %w", err)
	}
	if first, err := reader.ReadCheckpoint(ctx); err == nil {
		answer.Checkpoints = append(answer.Checkpoints, string(first))
	}
	awaiter := tessera.NewPublicationAwaiter(ctx, reader.ReadCheckpoint, checkpointInterval/2)
	for number, entries := range req.Rounds {
		checkpoint, err := appendAll(ctx, appender, awaiter, entries, deadline)
		if err != nil {
			return fmt.Errorf("round %d: %w", number, err)
		}
		answer.Checkpoints = append(answer.Checkpoints, checkpoint)
	}
	return nil
}

// appendAll adds the entries and returns a published checkpoint that commits to all of them.
func appendAll(ctx context.Context, appender *tessera.Appender, awaiter *tessera.PublicationAwaiter, entries []string, deadline time.Duration) (string, error) {
	if len(entries) == 0 || len(entries) > maxEntries {
		return "", fmt.Errorf("%d entries in a round", len(entries))
	}
	futures := make([]tessera.IndexFuture, len(entries))
	for i, entry := range entries {
		futures[i] = appender.Add(ctx, tessera.NewEntry([]byte(entry)))
	}
	type published struct {
		checkpoint []byte
		err        error
	}
	// Await wakes only when its poller does, which a passed context alone does not make it do.
	done := make(chan published, 1)
	go func() {
		var last published
		for _, future := range futures {
			if _, last.checkpoint, last.err = awaiter.Await(ctx, future); last.err != nil {
				break
			}
		}
		done <- last
	}()
	select {
	case result := <-done:
		return string(result.checkpoint), result.err
	case <-time.After(deadline):
		return "", fmt.Errorf("no checkpoint was published within %s", deadline)
	}
}
