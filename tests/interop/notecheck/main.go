// Command notecheck verifies a cosigned checkpoint with the field's own Go verifiers.
//
// It reads one JSON object from stdin and writes one to stdout. The checkpoint is opened twice: as a
// client that knows only the log's key (golang.org/x/mod/sumdb/note alone), and as one that knows the
// cosigners too (transparency-dev/formats). Exit code 1 with {"error": …} means that one refused it.
package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"

	"github.com/transparency-dev/formats/log"
	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

type request struct {
	Note      string   `json:"note"`
	Origin    string   `json:"origin"`
	Log       string   `json:"log"`       // the log's vkey
	Cosigners []string `json:"cosigners"` // vkeys of types 0x04 and 0x06
}

type signature struct {
	Name      string `json:"name"`
	KeyID     string `json:"key_id"`
	Timestamp int64  `json:"timestamp"` // Unix seconds; 0 for the log's own signature
}

type response struct {
	Size              uint64      `json:"size"`
	Root              string      `json:"root"`
	Log               []signature `json:"log"`
	Cosignatures      []signature `json:"cosignatures"`
	Unverified        []signature `json:"unverified"`          // what no given key is known for
	UnverifiedLogOnly int         `json:"unverified_log_only"` // the same, for the client that knows the log alone
}

func main() {
	out := json.NewEncoder(os.Stdout)
	answer, err := check()
	if err != nil {
		_ = out.Encode(map[string]string{"error": err.Error()})
		os.Exit(1)
	}
	_ = out.Encode(answer)
}

func check() (*response, error) {
	var req request
	if err := json.NewDecoder(os.Stdin).Decode(&req); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	logVerifier, err := fnote.NewVerifier(req.Log)
	if err != nil {
		return nil, fmt.Errorf("log vkey: %w", err)
	}
	cosigners := make([]note.Verifier, 0, len(req.Cosigners))
	for _, vkey := range req.Cosigners {
		v, err := fnote.NewVerifierForCosignatureV1(vkey)
		if err != nil {
			return nil, fmt.Errorf("cosigner %q: %w", vkey, err)
		}
		cosigners = append(cosigners, v)
	}
	plain, err := note.Open([]byte(req.Note), note.VerifierList(logVerifier))
	if err != nil {
		return nil, fmt.Errorf("note.Open with the log's key alone: %w", err)
	}
	checkpoint, _, opened, err := log.ParseCheckpoint([]byte(req.Note), req.Origin, logVerifier, cosigners...)
	if err != nil {
		return nil, fmt.Errorf("log.ParseCheckpoint: %w", err)
	}
	answer := &response{
		Size:              checkpoint.Size,
		Root:              base64.StdEncoding.EncodeToString(checkpoint.Hash),
		Log:               []signature{},
		Cosignatures:      []signature{},
		Unverified:        []signature{},
		UnverifiedLogOnly: len(plain.UnverifiedSigs),
	}
	for _, s := range opened.Sigs {
		described := signature{Name: s.Name, KeyID: fmt.Sprintf("%08x", s.Hash)}
		if s.Name == logVerifier.Name() && s.Hash == logVerifier.KeyHash() {
			answer.Log = append(answer.Log, described)
			continue
		}
		at, err := fnote.CoSigV1Timestamp(s)
		if err != nil {
			return nil, fmt.Errorf("timestamp of %s: %w", s.Name, err)
		}
		described.Timestamp = at.Unix()
		answer.Cosignatures = append(answer.Cosignatures, described)
	}
	for _, s := range opened.UnverifiedSigs {
		answer.Unverified = append(answer.Unverified, signature{Name: s.Name, KeyID: fmt.Sprintf("%08x", s.Hash)})
	}
	return answer, nil
}
