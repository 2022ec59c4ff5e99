// Package jobs executes the region's own durable jobs and its periodic tasks. Jobs are rows of the store (package storage owns their
// life: claim, lease, attempt, retry); racks execute theirs over the rack link. This package knows how to run work and keep its lease, and
// nothing of what the work is.
package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/ingot-metal/ingot/storage"
)

// Handler does one attempt at a job and returns its result. An error leads to another attempt, unless it is Final or the
// attempts are used up. It must return when ctx ends: the lease is lost, or the program stops.
type Handler func(ctx context.Context, j storage.Job) (json.RawMessage, error)

// Final marks an error that another attempt cannot cure.
func Final(err error) error {
	if err == nil {
		return nil
	}
	return finalError{err}
}

type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// Runner claims jobs of queues and runs them. DB, Queues, Worker and Handlers are required.
type Runner struct {
	DB       *storage.DB
	Queues   []string
	Worker   string // unique among all that claim
	Handlers map[string]Handler
	Parallel int           // 0 is 4
	Lease    time.Duration // 0 is 30 s
	Poll     time.Duration // 0 is 1 s; a new job is seen sooner when it comes with a change of revision
	Log      *slog.Logger  // discards when nil
}

// Run works until ctx ends, and waits for what runs then.
func (r *Runner) Run(ctx context.Context) error {
	if r.DB == nil || r.Worker == "" || len(r.Queues) == 0 {
		return errors.New("jobs: a runner needs a store, a name and queues")
	}
	parallel, poll := r.Parallel, r.Poll
	if parallel <= 0 {
		parallel = 4
	}
	if poll <= 0 {
		poll = time.Second
	}
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	defer wg.Wait()
	var revision int64
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case slots <- struct{}{}:
		}
		j, ok, err := r.claim(ctx)
		if ok {
			wg.Go(func() {
				defer func() { <-slots }()
				r.work(ctx, j)
			})
			continue
		}
		<-slots
		if err != nil && ctx.Err() == nil {
			r.log().Error("jobs not claimed", "error", err)
		}
		wctx, cancel := context.WithTimeout(ctx, poll)
		if now, err := r.DB.WaitRevision(wctx, revision); err == nil {
			revision = now
		}
		cancel()
	}
	return ctx.Err()
}

func (r *Runner) log() *slog.Logger {
	if r.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return r.Log
}

func (r *Runner) lease() time.Duration {
	if r.Lease <= 0 {
		return 30 * time.Second
	}
	return r.Lease
}

func (r *Runner) claim(ctx context.Context) (storage.Job, bool, error) {
	due := false
	if err := r.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		due, err = tx.HasDueJobs(r.Queues)
		return err
	}); err != nil || !due {
		return storage.Job{}, false, err
	}
	var list []storage.Job
	err := r.DB.Write(ctx, func(tx *storage.Tx) (err error) {
		list, err = tx.ClaimJobs(r.Queues, r.Worker, 1, r.lease())
		return err
	})
	if err != nil || len(list) == 0 {
		return storage.Job{}, false, err
	}
	return list[0], true, nil
}

// work runs an attempt with its lease kept alive, and records its end unless the lease was lost.
func (r *Runner) work(ctx context.Context, j storage.Job) {
	begin := time.Now()
	log := r.log().With("job", j.ID, "kind", j.Kind, "attempt", j.Attempt)
	jctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		r.keep(jctx, cancel, j)
	}()
	result, err := r.call(jctx, j)
	over := jctx.Err() != nil
	cancel()
	<-kept
	if over {
		log.Info("job dropped", "duration", time.Since(begin))
		return
	}
	state, text := storage.JobDone, ""
	if err != nil {
		state, text = storage.JobRetry, err.Error()
		if errors.As(err, new(finalError)) {
			state = storage.JobFailed
		}
	}
	ferr := r.DB.Write(context.WithoutCancel(ctx), func(tx *storage.Tx) error {
		_, err := tx.FinishJob(j.ID, j.Attempt, state, result, text)
		return err
	})
	switch {
	case errors.Is(ferr, storage.ErrStale):
		log.Info("job was called off", "duration", time.Since(begin))
	case ferr != nil:
		log.Error("job's end not recorded", "error", ferr)
	case err != nil:
		log.Warn("job attempt failed", "duration", time.Since(begin), "error", err)
	default:
		log.Info("job done", "duration", time.Since(begin))
	}
}

func (r *Runner) call(ctx context.Context, j storage.Job) (result json.RawMessage, err error) {
	h, ok := r.Handlers[j.Kind]
	if !ok {
		return nil, Final(fmt.Errorf("no handler for jobs of kind %q", j.Kind))
	}
	defer func() {
		if e := recover(); e != nil {
			r.log().Error("job handler panicked", "job", j.ID, "kind", j.Kind, "panic", e, "stack", string(debug.Stack()))
			err = errors.New("the handler panicked")
		}
	}()
	return h(ctx, j)
}

func (r *Runner) keep(ctx context.Context, lost context.CancelFunc, j storage.Job) {
	until := time.Now().Add(r.lease())
	t := time.NewTicker(r.lease() / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		begin := time.Now()
		err := r.DB.Write(ctx, func(tx *storage.Tx) error { return tx.HeartbeatJob(j.ID, j.Attempt, r.lease()) })
		switch {
		case err == nil:
			until = begin.Add(r.lease())
		case errors.Is(err, storage.ErrStale), time.Now().After(until):
			lost()
			return
		}
	}
}

// Task is something done again and again. It must be safe to do twice: each region does it.
type Task struct {
	Name  string
	Every time.Duration
	Run   func(ctx context.Context) error
}

// Periodic runs tasks, each at its own pace: once soon after the start, then after each Every with some jitter, never twice at
// the same time. A failure is logged and does not end the others.
type Periodic struct {
	Tasks []Task
	Log   *slog.Logger // discards when nil
}

// Run works until ctx ends, and waits for what runs then.
func (p *Periodic) Run(ctx context.Context) error {
	log := p.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var wg sync.WaitGroup
	for _, t := range p.Tasks {
		if t.Every <= 0 || t.Run == nil {
			return fmt.Errorf("jobs: task %q has no interval or nothing to do", t.Name)
		}
	}
	for _, t := range p.Tasks {
		wg.Go(func() {
			timer := time.NewTimer(jitter(t.Every) / 10)
			defer timer.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-timer.C:
				}
				if err := runTask(ctx, t); err != nil && ctx.Err() == nil {
					log.Error("periodic task failed", "task", t.Name, "error", err)
				}
				timer.Reset(jitter(t.Every))
			}
		})
	}
	<-ctx.Done()
	wg.Wait()
	return ctx.Err()
}

func runTask(ctx context.Context, t Task) (err error) {
	defer func() {
		if e := recover(); e != nil {
			err = fmt.Errorf("panic: %v\n%s", e, debug.Stack())
		}
	}()
	return t.Run(ctx)
}

// jitter is d, up to a tenth longer or shorter, so that several regions do not act in step.
func jitter(d time.Duration) time.Duration {
	spread := int64(d / 5)
	if spread <= 0 {
		return d
	}
	return d - time.Duration(spread/2) + time.Duration(rand.Int64N(spread))
}
