// Command subtreecheck verifies one line of a sign-subtree answer with transparency-dev/formats.
//
// It reads one JSON object from stdin and writes {"verified": bool, "timestamp": N} to stdout; exit
// code 1 with {"error": …} means that the line or the key could not be read at all.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	fnote "github.com/transparency-dev/formats/note"
)

type request struct {
	VKey   string `json:"vkey"` // type 0x06
	Line   string `json:"line"` // "— name base64"
	Origin string `json:"origin"`
	Start  uint64 `json:"start"`
	End    uint64 `json:"end"`
	Root   []byte `json:"root"` // base64 in JSON
}

func main() {
	out := json.NewEncoder(os.Stdout)
	verified, timestamp, err := check()
	if err != nil {
		_ = out.Encode(map[string]string{"error": err.Error()})
		os.Exit(1)
	}
	_ = out.Encode(map[string]any{"verified": verified, "timestamp": timestamp})
}

func check() (bool, uint64, error) {
	var req request
	if err := json.NewDecoder(os.Stdin).Decode(&req); err != nil {
		return false, 0, fmt.Errorf("request: %w", err)
	}
	verifier, err := fnote.NewMLDSAVerifier(req.VKey)
	if err != nil {
		return false, 0, fmt.Errorf("vkey: %w", err)
	}
	fields := strings.Split(strings.TrimSuffix(req.Line, "\n"), " ")
	if len(fields) != 3 || fields[0] != "—" || fields[1] != verifier.Name() {
		return false, 0, errors.New("not a signature line of this key's name")
	}
	value, err := base64.StdEncoding.Strict().DecodeString(fields[2])
	if err != nil || len(value) < 12 {
		return false, 0, errors.New("not a timestamped signature")
	}
	if binary.BigEndian.Uint32(value) != verifier.KeyHash() {
		return false, 0, errors.New("another key's ID")
	}
	timestamp := binary.BigEndian.Uint64(value[4:])
	return verifier.VerifySubtree(timestamp, req.Origin, req.Start, req.End, req.Root, value[4:]), timestamp, nil
}
