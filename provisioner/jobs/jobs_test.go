package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ingot-metal/ingot/provisioner/jobs"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

func enqueue(t *testing.T, db *storage.DB, kind string, attempts int64) int64 {
	t.Helper()
	var id int64
	err := db.Write(t.Context(), func(tx *storage.Tx) error {
		j, err := tx.EnqueueJob(storage.Job{Kind: kind, Queue: "region", MaxAttempts: attempts})
		id = j.ID
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func job(t *testing.T, db *storage.DB, id int64) (j storage.Job) {
	t.Helper()
	if err := db.Read(t.Context(), func(tx *storage.Tx) (err error) { j, err = tx.Job(id); return err }); err != nil {
		t.Fatal(err)
	}
	return j
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

func TestRunner(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ok := enqueue(t, db, "ok", 3)
		bad := enqueue(t, db, "final", 3)
		unknown := enqueue(t, db, "unknown", 3)
		panics := enqueue(t, db, "panics", 1)
		again := enqueue(t, db, "again", 3)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		r := &jobs.Runner{DB: db, Queues: []string{"region"}, Worker: "w", Poll: 10 * time.Millisecond, Handlers: map[string]jobs.Handler{
			"ok": func(context.Context, storage.Job) (json.RawMessage, error) { return json.RawMessage(`{"n": 1}`), nil },
			"final": func(context.Context, storage.Job) (json.RawMessage, error) {
				return nil, jobs.Final(errors.New("never"))
			},
			"panics": func(context.Context, storage.Job) (json.RawMessage, error) { panic("oh") },
			"again":  func(context.Context, storage.Job) (json.RawMessage, error) { return nil, errors.New("later") },
		}}
		go func() { done <- r.Run(ctx) }()
		waitFor(t, "the end of the jobs", func() bool {
			return job(t, db, ok).State == storage.JobDone && job(t, db, bad).State == storage.JobFailed && job(t, db, unknown).State == storage.JobFailed &&
				job(t, db, panics).State == storage.JobFailed && job(t, db, again).Error == "later"
		})
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		if j := job(t, db, ok); !strings.Contains(string(j.Result), `"n"`) {
			t.Errorf("result %s", j.Result)
		}
		if j := job(t, db, bad); j.Error != "never" || j.Attempt != 1 {
			t.Errorf("a final error: %q after attempt %d", j.Error, j.Attempt)
		}
		if j := job(t, db, again); j.State != storage.JobReady || !j.RunAt.After(j.Created) {
			t.Errorf("a job to do again is %s at %s", j.State, j.RunAt)
		}
	})
}

// A job that was called off ends, and its late result is not recorded.
func TestRunnerLosesItsLease(t *testing.T) {
	db := storagetest.New(t)
	id := enqueue(t, db, "slow", 3)
	var ended atomic.Bool
	started := make(chan struct{})
	r := &jobs.Runner{DB: db, Queues: []string{"region"}, Worker: "w", Lease: 300 * time.Millisecond, Poll: 10 * time.Millisecond, Handlers: map[string]jobs.Handler{
		"slow": func(ctx context.Context, _ storage.Job) (json.RawMessage, error) {
			close(started)
			<-ctx.Done()
			ended.Store(true)
			return nil, nil
		},
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-started
	time.Sleep(500 * time.Millisecond) // longer than a lease: the heartbeat keeps it
	if j := job(t, db, id); j.State != storage.JobRunning || j.Attempt != 1 {
		t.Errorf("while it runs: %s, attempt %d", j.State, j.Attempt)
	}
	err := db.Write(t.Context(), func(tx *storage.Tx) error {
		_, err := tx.Exec(`update jobs set state = 'cancelled', finished = 1 where id = $1`, id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of the handler", ended.Load)
	cancel()
	<-done
	if j := job(t, db, id); j.State != storage.JobCancelled {
		t.Errorf("the cancelled job is %s", j.State)
	}
}

func TestPeriodic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fast, slow, bad, at, most atomic.Int64
		p := &jobs.Periodic{Tasks: []jobs.Task{
			{Name: "fast", Every: time.Second, Run: func(context.Context) error {
				most.Store(max(most.Load(), at.Add(1)))
				time.Sleep(3 * time.Second)
				at.Add(-1)
				fast.Add(1)
				return nil
			}},
			{Name: "slow", Every: time.Hour, Run: func(context.Context) error { slow.Add(1); return nil }},
			{Name: "bad", Every: time.Minute, Run: func(context.Context) error {
				if bad.Add(1)%2 == 0 {
					panic("no")
				}
				return errors.New("no")
			}},
		}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		time.Sleep(3 * time.Hour)
		cancel()
		<-done
		if n := slow.Load(); n < 2 || n > 4 {
			t.Errorf("hourly: %d times in 3 hours", n)
		}
		if n := bad.Load(); n < 150 || n > 210 {
			t.Errorf("a failing task every minute: %d times in 3 hours", n)
		}
		if fast.Load() < 2000 || most.Load() != 1 {
			t.Errorf("a task longer than its interval: %d times, %d at once", fast.Load(), most.Load())
		}
	})
}

func TestPeriodicRefusesNothing(t *testing.T) {
	p := &jobs.Periodic{Tasks: []jobs.Task{{Name: "x"}}}
	if err := p.Run(t.Context()); err == nil {
		t.Error("a task without an interval was taken")
	}
}
