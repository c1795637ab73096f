// Command sumdbserver serves a checksum database, golang.org/x/mod/sumdb's own server, on loopback.
//
// It prints one line of JSON, its URL and vkey, once it listens. A look-up of a module that it does not
// know adds a record for it. It ends on SIGTERM, and by itself after -for.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	lifetime := flag.Duration("for", 2*time.Minute, "how long to serve at most")
	name := flag.String("name", "sum.interop.example", "the database's key name")
	flag.Parse()
	if err := serve(*name, *lifetime); err != nil {
		log.Fatal(err)
	}
}

func serve(name string, lifetime time.Duration) error {
	skey, vkey, err := note.GenerateKey(nil, name)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	database := sumdb.NewTestServer(skey, func(path, version string) ([]byte, error) {
		return fmt.Appendf(nil, "%s %s h1:%064d=\n", path, version, len(path)), nil
	})
	handler := sumdb.NewServer(database)
	mux := http.NewServeMux()
	for _, path := range sumdb.ServerPaths {
		mux.Handle(path, handler)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	ctx, stop := context.WithTimeout(ctx, lifetime)
	defer stop()
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	where := map[string]string{"url": "http://" + listener.Addr().String(), "vkey": vkey}
	if err := json.NewEncoder(os.Stdout).Encode(where); err != nil {
		return err
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
