package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// component is something that lives as long as the process.
type component struct {
	name string
	run  func(context.Context) error
	// wait bounds how long the end of this component is waited for; 0 is 15 seconds.
	wait time.Duration
}

// errDone is the error of a component that has reached what the process was started for.
var errDone = errors.New("done")

// errStopped says that a component ended although nobody asked it to.
var errStopped = errors.New("ended")

// runStages runs all components of all stages until ctx ends or the first of them does. Then it ends the stages in order, each
// after the one before it is done: listeners first, then what takes work, then what that work needs.
func runStages(ctx context.Context, log *slog.Logger, stages ...[]component) error {
	type ended struct {
		name string
		err  error
	}
	first := make(chan ended, 1)
	type stage struct {
		cancel context.CancelFunc
		done   []chan struct{}
		list   []component
	}
	var running []stage
	base := context.WithoutCancel(ctx)
	for _, list := range stages {
		sctx, cancel := context.WithCancel(base)
		s := stage{cancel: cancel, list: list}
		for _, c := range list {
			done := make(chan struct{})
			s.done = append(s.done, done)
			go func() {
				defer close(done)
				err := c.run(sctx)
				if sctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
					return
				}
				if err == nil {
					err = errStopped
				}
				select {
				case first <- ended{c.name, err}:
				default:
				}
			}()
		}
		running = append(running, s)
	}
	var err error
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case e := <-first:
		err = fmt.Errorf("%s: %w", e.name, e.err)
		if errors.Is(e.err, errDone) {
			log.Info("done, stopping")
		} else {
			log.Error("component ended", "component", e.name, "err", e.err)
		}
	}
	for _, s := range running {
		s.cancel()
		for i, done := range s.done {
			wait := s.list[i].wait
			if wait == 0 {
				wait = 15 * time.Second
			}
			select {
			case <-done:
			case <-time.After(wait):
				err = errors.Join(err, fmt.Errorf("%s did not end within %s", s.list[i].name, wait))
				log.Error("component does not end", "component", s.list[i].name)
			}
		}
	}
	return err
}

// httpComponent serves h on an open listener. Requests that are under way at the end have ten seconds.
func httpComponent(name string, l net.Listener, h http.Handler, log *slog.Logger) component {
	return serverComponent(name, l, &http.Server{Handler: h}, false, log)
}

func serverComponent(name string, l net.Listener, srv *http.Server, tls bool, log *slog.Logger) component {
	srv.ReadHeaderTimeout = 20 * time.Second
	srv.IdleTimeout = 2 * time.Minute
	srv.MaxHeaderBytes = 1 << 20
	srv.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	return component{name: name, run: func(ctx context.Context) error {
		// Long polls wait on the request's context, which has to end with the server or Shutdown waits for them.
		rctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		srv.BaseContext = func(net.Listener) context.Context { return rctx }
		var wg sync.WaitGroup
		stop := context.AfterFunc(ctx, func() {
			defer wg.Done()
			sctx, done := context.WithTimeout(context.Background(), 10*time.Second)
			defer done()
			quick := time.AfterFunc(2*time.Second, cancel)
			defer quick.Stop()
			if srv.Shutdown(sctx) != nil {
				srv.Close()
			}
		})
		wg.Add(1)
		var err error
		if tls {
			err = srv.ServeTLS(l, "", "")
		} else {
			err = srv.Serve(l)
		}
		if stop() {
			wg.Done() // it never ran
		}
		wg.Wait()
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return err
	}}
}

// background makes a component of something that runs until its context ends.
func background(name string, run func(context.Context) error) component {
	return component{name: name, run: run}
}

// once makes a component of something that ends by itself: its success ends nothing.
func once(name string, run func(context.Context) error) component {
	return component{name: name, run: func(ctx context.Context) error {
		if err := run(ctx); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}}
}
