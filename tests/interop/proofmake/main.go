// Command proofmake makes tlog-proofs for an entry of a Tessera log's folder: the inclusion proof is
// Tessera's, the encodings are those of transparency-dev's formats and of filippo.io/torchwood.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"filippo.io/torchwood"
	"github.com/transparency-dev/formats/log"
	fnote "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/tlog"
)

type request struct {
	Dir    string `json:"dir"`
	Index  uint64 `json:"index"`
	Origin string `json:"origin"`
	Log    string `json:"log"`
	Extra  []byte `json:"extra"`
}

type response struct {
	Formats   string `json:"formats"`
	Torchwood string `json:"torchwood"`
	Error     string `json:"error,omitempty"`
}

func main() {
	var answer response
	if err := run(&answer); err != nil {
		answer.Error = err.Error()
	}
	_ = json.NewEncoder(os.Stdout).Encode(answer)
	if answer.Error != "" {
		os.Exit(1)
	}
}

func run(answer *response) error {
	var req request
	if err := json.NewDecoder(os.Stdin).Decode(&req); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	ctx := context.Background()
	fetcher := client.FileFetcher{Root: req.Dir}
	raw, err := fetcher.ReadCheckpoint(ctx)
	if err != nil {
		return err
	}
	verifier, err := fnote.NewVerifier(req.Log)
	if err != nil {
		return err
	}
	checkpoint, _, _, err := log.ParseCheckpoint(raw, req.Origin, verifier)
	if err != nil {
		return err
	}
	builder, err := client.NewProofBuilder(ctx, checkpoint.Size, fetcher.ReadTile)
	if err != nil {
		return err
	}
	hashes, err := builder.InclusionProof(ctx, req.Index)
	if err != nil {
		return err
	}
	p := proof.TLogProof{Index: req.Index, Checkpoint: raw, ExtraData: req.Extra}
	var record tlog.RecordProof
	for _, hash := range hashes {
		p.Hashes = append(p.Hashes, [32]byte(hash))
		record = append(record, tlog.Hash(hash))
	}
	answer.Formats = string(p.Marshal())
	if req.Extra != nil {
		answer.Torchwood = string(torchwood.FormatProofWithExtraData(int64(req.Index), req.Extra, record, raw))
	} else {
		answer.Torchwood = string(torchwood.FormatProof(int64(req.Index), record, raw))
	}
	return nil
}
