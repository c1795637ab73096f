// Command addcheckpoint sends one add-checkpoint body through omniwitness's own HTTP client.
//
// It reads one JSON object from stdin and writes to stdout what that client made of the answer: the
// signature lines, or the name of its error and the size that a stale caller is told.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	client "github.com/transparency-dev/witness/client/http"
	"github.com/transparency-dev/witness/witness"
)

const deadline = 10 * time.Second

type request struct {
	URL  string `json:"url"`
	Body string `json:"body"`
}

type response struct {
	Signatures string `json:"signatures"`
	Size       uint64 `json:"size"`
	Error      string `json:"error"`
}

// names are the errors that a feeder of theirs tells apart.
var names = []struct {
	err  error
	name string
}{
	{witness.ErrCheckpointStale, "stale"},
	{witness.ErrUnknownLog, "unknown log"},
	{witness.ErrNoValidSignature, "no valid signature"},
	{witness.ErrOldSizeInvalid, "old size invalid"},
	{witness.ErrInvalidProof, "invalid proof"},
	{witness.ErrRootMismatch, "root mismatch"},
	{witness.ErrPushback, "pushback"},
}

func main() {
	out := json.NewEncoder(os.Stdout)
	answer, err := send()
	if err != nil {
		_ = out.Encode(map[string]string{"error": err.Error()})
		os.Exit(1)
	}
	_ = out.Encode(answer)
}

func send() (*response, error) {
	var req request
	if err := json.NewDecoder(os.Stdin).Decode(&req); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	target, err := url.Parse(req.URL)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	old, proof, checkpoint, err := split(req.Body)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	lines, size, err := client.NewWitness(target, http.DefaultClient).Update(ctx, old, []byte(checkpoint), proof)
	answer := &response{Signatures: string(lines), Size: size}
	if err != nil {
		answer.Error = err.Error()
		for _, known := range names {
			if errors.Is(err, known.err) {
				answer.Error = known.name
			}
		}
	}
	return answer, nil
}

// split takes an add-checkpoint body apart again: that client wants the parts.
func split(body string) (old uint64, proof [][]byte, checkpoint string, err error) {
	head, checkpoint, found := strings.Cut(body, "\n\n")
	if !found {
		return 0, nil, "", errors.New("the body has no empty line")
	}
	lines := strings.Split(head, "\n")
	if _, err := fmt.Sscanf(lines[0], "old %d", &old); err != nil {
		return 0, nil, "", fmt.Errorf("old size line: %w", err)
	}
	for _, line := range lines[1:] {
		hash, err := base64.StdEncoding.DecodeString(line)
		if err != nil {
			return 0, nil, "", fmt.Errorf("proof line: %w", err)
		}
		proof = append(proof, hash)
	}
	return old, proof, checkpoint, nil
}
