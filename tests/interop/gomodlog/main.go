// Command gomodlog is a log made of golang.org/x/mod/sumdb alone: its tree, its proofs, its notes.
//
// It reads one JSON object from stdin and writes to stdout the log's vkey and, for each step from one
// size to another, the add-checkpoint body that asks a witness to follow. Nothing here was written by
// the witness's authors but the framing of that body.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const maxSize = 100_000 // entries; this is a test's log

type request struct {
	Origin string     `json:"origin"`
	Seed   string     `json:"seed"`  // what the signing key is derived from
	Entry  string     `json:"entry"` // prefix of each entry; another prefix makes a fork
	Steps  [][2]int64 `json:"steps"` // pairs of an old and a new size
}

type response struct {
	VKey   string   `json:"vkey"`
	Bodies []string `json:"bodies"`
}

func main() {
	out := json.NewEncoder(os.Stdout)
	answer, err := build()
	if err != nil {
		_ = out.Encode(map[string]string{"error": err.Error()})
		os.Exit(1)
	}
	_ = out.Encode(answer)
}

func build() (*response, error) {
	var req request
	if err := json.NewDecoder(os.Stdin).Decode(&req); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	seed := sha256.Sum256([]byte(req.Seed))
	skey, vkey, err := note.GenerateKey(bytes.NewReader(seed[:]), req.Origin)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	tree, err := grow(req)
	if err != nil {
		return nil, err
	}
	answer := &response{VKey: vkey, Bodies: []string{}}
	for _, step := range req.Steps {
		body, err := tree.body(req.Origin, signer, step[0], step[1])
		if err != nil {
			return nil, fmt.Errorf("step %v: %w", step, err)
		}
		answer.Bodies = append(answer.Bodies, body)
	}
	return answer, nil
}

// stored is the tree as x/mod stores it: hashes by their storage index.
type stored []tlog.Hash

func (s stored) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(s)) {
			return nil, fmt.Errorf("no hash %d", index)
		}
		hashes[i] = s[index]
	}
	return hashes, nil
}

func grow(req request) (stored, error) {
	var size int64
	for _, step := range req.Steps {
		size = max(size, step[1])
	}
	if size > maxSize {
		return nil, fmt.Errorf("a size of %d is more than %d", size, maxSize)
	}
	var tree stored
	for n := range size {
		hashes, err := tlog.StoredHashes(n, fmt.Appendf(nil, "%s %d", req.Entry, n), tree)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", n, err)
		}
		tree = append(tree, hashes...)
	}
	return tree, nil
}

// body is the add-checkpoint request for growth from old to size.
func (s stored) body(origin string, signer note.Signer, old, size int64) (string, error) {
	root, err := tlog.TreeHash(size, s)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("%s\n%d\n%s\n", origin, size, root)
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		return "", err
	}
	var body strings.Builder
	fmt.Fprintf(&body, "old %d\n", old)
	if 0 < old && old < size {
		proof, err := tlog.ProveTree(size, old, s)
		if err != nil {
			return "", err
		}
		for _, hash := range proof {
			fmt.Fprintf(&body, "%s\n", hash)
		}
	}
	fmt.Fprintf(&body, "\n%s", signed)
	return body.String(), nil
}
