// Command proofcheck says what the field's Go libraries make of a tlog-proof.
//
// filippo.io/torchwood verifies all of it, by a policy. transparency-dev's formats and merkle parse it,
// encode it again, and verify the signatures and the inclusion. Exit code 1 is a "no", with the reason.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"filippo.io/torchwood"
	"github.com/transparency-dev/formats/log"
	fnote "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/formats/proof"
	merkle "github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type request struct {
	Proof     string   `json:"proof"`
	Entry     []byte   `json:"entry"`     // base64 in JSON
	Policy    string   `json:"policy"`    // for torchwood
	Origin    string   `json:"origin"`    // for formats
	Log       string   `json:"log"`       // its vkey
	Cosigners []string `json:"cosigners"` // vkeys, each of which must have signed
}

type response struct {
	Index uint64 `json:"index"`
	Size  uint64 `json:"size"`
	Error string `json:"error,omitempty"`
}

func main() {
	var answer response
	if err := check(&answer); err != nil {
		answer.Error = err.Error()
	}
	_ = json.NewEncoder(os.Stdout).Encode(answer)
	if answer.Error != "" {
		os.Exit(1)
	}
}

func check(answer *response) error {
	var req request
	if err := json.NewDecoder(os.Stdin).Decode(&req); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	policy, err := torchwood.ParsePolicy([]byte(req.Policy))
	if err != nil {
		return fmt.Errorf("torchwood, policy: %w", err)
	}
	if err := torchwood.VerifyProof(policy, tlog.RecordHash(req.Entry), []byte(req.Proof)); err != nil {
		return fmt.Errorf("torchwood: %w", err)
	}
	if err := checkFormats(&req, answer); err != nil {
		return fmt.Errorf("transparency-dev: %w", err)
	}
	return nil
}

func checkFormats(req *request, answer *response) error {
	var p proof.TLogProof
	if err := p.Unmarshal([]byte(req.Proof)); err != nil {
		return err
	}
	if !bytes.Equal(p.Marshal(), []byte(req.Proof)) {
		return fmt.Errorf("encoded again, it is another proof")
	}
	verifier, err := fnote.NewVerifier(req.Log)
	if err != nil {
		return err
	}
	var cosigners []note.Verifier
	for _, vkey := range req.Cosigners {
		cosigner, err := fnote.NewVerifierForCosignatureV1(vkey)
		if err != nil {
			return err
		}
		cosigners = append(cosigners, cosigner)
	}
	checkpoint, _, opened, err := log.ParseCheckpoint(p.Checkpoint, req.Origin, verifier, cosigners...)
	if err != nil {
		return err
	}
	if len(opened.Sigs) != 1+len(cosigners) {
		return fmt.Errorf("%d signatures verify, not those of the log and %d witnesses", len(opened.Sigs), len(cosigners))
	}
	hashes := make([][]byte, len(p.Hashes))
	for i := range p.Hashes {
		hashes[i] = p.Hashes[i][:]
	}
	leaf := rfc6962.DefaultHasher.HashLeaf(req.Entry)
	answer.Index, answer.Size = p.Index, checkpoint.Size
	return merkle.VerifyInclusion(rfc6962.DefaultHasher, p.Index, checkpoint.Size, leaf, hashes, checkpoint.Hash)
}
