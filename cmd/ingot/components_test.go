package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestRunStagesEndsInOrder(t *testing.T) {
	var mu sync.Mutex
	var order []string
	c := func(name string) component {
		return background(name, func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(10 * time.Millisecond)
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			return ctx.Err()
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := runStages(ctx, slog.New(slog.DiscardHandler), []component{c("listen")}, []component{c("claim")}, []component{c("store")}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(order, []string{"listen", "claim", "store"}) {
		t.Fatalf("ended in the order %v", order)
	}
}

func TestRunStagesFirstStopsAll(t *testing.T) {
	boom := errors.New("boom")
	stopped := make(chan struct{})
	err := runStages(t.Context(), slog.New(slog.DiscardHandler),
		[]component{background("a", func(ctx context.Context) error { <-ctx.Done(); close(stopped); return nil })},
		[]component{background("b", func(context.Context) error { return boom })})
	if !errors.Is(err, boom) {
		t.Fatalf("error %v", err)
	}
	<-stopped
	err = runStages(t.Context(), slog.New(slog.DiscardHandler), []component{background("a", func(context.Context) error { return nil })})
	if !errors.Is(err, errStopped) {
		t.Fatalf("a component that ends for no reason: %v", err)
	}
}

func TestRunStagesDoesNotWaitForEver(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := runStages(ctx, slog.New(slog.DiscardHandler), []component{{name: "stuck", wait: 20 * time.Millisecond, run: func(context.Context) error { <-hang; return nil }}})
	if err == nil {
		t.Fatal("a component that hangs went unnoticed")
	}
}

func TestHTTPComponentEndsLongPolls(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	in := make(chan struct{})
	c := httpComponent("http", l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(in)
		<-r.Context().Done()
	}), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.run(ctx) }()
	go func() {
		if r, err := http.Get("http://" + l.Addr().String()); err == nil {
			r.Body.Close()
		}
	}()
	<-in
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(8 * time.Second):
		t.Fatal("the server waits for its long poll")
	}
}
