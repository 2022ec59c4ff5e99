package storage_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func enqueue(t *testing.T, db *storage.DB, j storage.Job) storage.Job {
	t.Helper()
	var out storage.Job
	write(t, db, func(tx *storage.Tx) (err error) { out, err = tx.EnqueueJob(j); return err })
	return out
}

func claim(t *testing.T, db *storage.DB, worker string, limit int, queues ...string) []storage.Job {
	t.Helper()
	var out []storage.Job
	write(t, db, func(tx *storage.Tx) (err error) {
		out, err = tx.ClaimJobs(queues, worker, limit, time.Minute)
		return err
	})
	return out
}

func TestJobIsClaimedOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		const jobs = 100
		for i := range jobs {
			enqueue(t, db, storage.Job{Kind: "power", Queue: fmt.Sprintf("vlan:%d", i%3)})
		}
		var mu sync.Mutex
		seen := map[int64]string{}
		var wg sync.WaitGroup
		for w := range 12 {
			worker := fmt.Sprintf("w%d", w)
			wg.Go(func() {
				for {
					var got []storage.Job
					if err := db.Write(ctx, func(tx *storage.Tx) (err error) {
						got, err = tx.ClaimJobs([]string{"vlan:0", "vlan:1", "vlan:2"}, worker, 3, time.Minute)
						return err
					}); err != nil {
						t.Error(err)
						return
					}
					if len(got) == 0 {
						return
					}
					mu.Lock()
					for _, j := range got {
						if other := seen[j.ID]; other != "" {
							t.Errorf("job %d: %s and %s", j.ID, other, worker)
						}
						seen[j.ID] = worker
						if j.Attempt != 1 || j.Worker != worker || j.State != storage.JobRunning {
							t.Errorf("claimed %+v", j)
						}
					}
					mu.Unlock()
					for _, j := range got {
						if err := db.Write(ctx, func(tx *storage.Tx) error {
							_, err := tx.FinishJob(j.ID, j.Attempt, storage.JobDone, nil, "")
							return err
						}); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
		if len(seen) != jobs {
			t.Errorf("%d jobs were claimed", len(seen))
		}
		if n := count(t, db, "select count(*) from jobs where state = 'done'"); n != jobs {
			t.Errorf("%d jobs are done", n)
		}
	})
}

func TestUniqueKey(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		key := "power:1"
		a := enqueue(t, db, storage.Job{Kind: "power", Queue: "rack", UniqueKey: &key, Args: json.RawMessage(`{"n":1}`)})
		b := enqueue(t, db, storage.Job{Kind: "power", Queue: "rack", UniqueKey: &key, Args: json.RawMessage(`{"n":2}`)})
		if a.ID != b.ID || string(b.Args) != `{"n":1}` {
			t.Errorf("got %+v", b)
		}
		j := claim(t, db, "w", 1, "rack")[0]
		if c := enqueue(t, db, storage.Job{Kind: "power", Queue: "rack", UniqueKey: &key}); c.ID != a.ID || c.State != storage.JobRunning {
			t.Errorf("while it runs: %+v", c)
		}
		write(t, db, func(tx *storage.Tx) error {
			_, err := tx.FinishJob(j.ID, j.Attempt, storage.JobFailed, nil, "x")
			return err
		})
		if c := enqueue(t, db, storage.Job{Kind: "power", Queue: "rack", UniqueKey: &key}); c.ID == a.ID {
			t.Error("the finished job keeps its key")
		}
		if err := db.Write(ctx, func(tx *storage.Tx) error { _, err := tx.EnqueueJob(storage.Job{Kind: "x"}); return err }); err == nil {
			t.Error("a job without a queue")
		}
	})
}

func TestJobLeaseAndFence(t *testing.T) {
	c := newClock()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		enqueue(t, db, storage.Job{Kind: "k", Queue: "q", MaxAttempts: 2})
		enqueue(t, db, storage.Job{Kind: "later", Queue: "q", RunAt: c.now().Add(24 * time.Hour)})
		one := claim(t, db, "dies", 9, "q", "other")
		if len(one) != 1 || one[0].Attempt != 1 {
			t.Fatalf("claimed %+v", one)
		}
		j := one[0]
		c.add(50 * time.Second)
		write(t, db, func(tx *storage.Tx) error { return tx.HeartbeatJob(j.ID, 1, time.Minute) })
		c.add(50 * time.Second) // past the first lease, within the second
		if got := claim(t, db, "b", 9, "q"); len(got) != 0 {
			t.Fatalf("claimed a leased job: %+v", got)
		}
		c.add(11 * time.Second)
		two := claim(t, db, "b", 9, "q")
		if len(two) != 1 || two[0].ID != j.ID || two[0].Attempt != 2 || two[0].Worker != "b" {
			t.Fatalf("claimed %+v", two)
		}
		for name, f := range map[string]func(tx *storage.Tx) error{
			"finish":    func(tx *storage.Tx) error { _, err := tx.FinishJob(j.ID, 1, storage.JobDone, nil, ""); return err },
			"heartbeat": func(tx *storage.Tx) error { return tx.HeartbeatJob(j.ID, 1, time.Minute) },
			"unknown":   func(tx *storage.Tx) error { _, err := tx.FinishJob(j.ID+99, 1, storage.JobDone, nil, ""); return err },
		} {
			if err := db.Write(ctx, f); !errors.Is(err, storage.ErrStale) {
				t.Errorf("%s by the old attempt: %v", name, err)
			}
		}
		c.add(2 * time.Minute)
		read(t, db, func(tx *storage.Tx) error {
			lost, err := tx.LostJobs()
			if len(lost) != 1 || lost[0].ID != j.ID {
				t.Errorf("lost: %+v", lost)
			}
			return err
		})
		if got := claim(t, db, "c", 9, "q"); len(got) != 0 {
			t.Fatalf("a third of two attempts: %+v", got)
		}
		read(t, db, func(tx *storage.Tx) error {
			got, err := tx.Job(j.ID)
			if got.State != storage.JobFailed || got.Error == "" || got.Finished.IsZero() {
				t.Errorf("got %+v", got)
			}
			return err
		})
	}, storagetest.WithNow(c.now))
}

func TestJobRetry(t *testing.T) {
	c := newClock()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		enqueue(t, db, storage.Job{Kind: "k", Queue: "q", MaxAttempts: 2})
		j := claim(t, db, "w", 1, "q")[0]
		finish := func(attempt int64) (out storage.Job) {
			write(t, db, func(tx *storage.Tx) (err error) {
				out, err = tx.FinishJob(j.ID, attempt, storage.JobRetry, json.RawMessage(`{"a":1}`), "busy")
				return err
			})
			return out
		}
		out := finish(1)
		if pause := out.RunAt.Sub(c.now()); out.State != storage.JobReady || pause < 2*time.Second || pause > 3*time.Second || out.Error != "busy" {
			t.Errorf("after the first: %+v, pause %v", out, pause)
		}
		if got := claim(t, db, "w", 1, "q"); len(got) != 0 {
			t.Errorf("claimed before its time: %+v", got)
		}
		c.add(3 * time.Second)
		if got := claim(t, db, "w", 1, "q"); len(got) != 1 || got[0].Attempt != 2 {
			t.Fatalf("claimed %+v", got)
		}
		if out := finish(2); out.State != storage.JobFailed || !out.Finished.Equal(c.now()) {
			t.Errorf("after the last: %+v", out)
		}
		write(t, db, func(tx *storage.Tx) error {
			n, err := tx.PurgeJobs(c.now().Add(time.Second))
			if n != 1 {
				t.Errorf("purged %d", n)
			}
			return err
		})
	}, storagetest.WithNow(c.now))
}

func TestCancelJobs(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		one, two := int64(1), int64(2)
		enqueue(t, db, storage.Job{Kind: "power", Queue: "q", NodeID: &one})
		enqueue(t, db, storage.Job{Kind: "power", Queue: "q", NodeID: &two})
		enqueue(t, db, storage.Job{Kind: "other", Queue: "q", NodeID: &one})
		running := claim(t, db, "w", 1, "q")[0]
		write(t, db, func(tx *storage.Tx) error {
			n, err := tx.CancelJobs(one, "power")
			if n != 1 {
				t.Errorf("cancelled %d", n)
			}
			return err
		})
		err := db.Write(ctx, func(tx *storage.Tx) error {
			_, err := tx.FinishJob(running.ID, running.Attempt, storage.JobDone, nil, "")
			return err
		})
		if !errors.Is(err, storage.ErrStale) {
			t.Errorf("finishing a cancelled job: %v", err)
		}
		read(t, db, func(tx *storage.Tx) error {
			jobs, err := tx.Jobs(storage.JobFilter{NodeID: &one, States: []string{storage.JobReady, storage.JobRunning}})
			if len(jobs) != 1 || jobs[0].Kind != "other" {
				t.Errorf("left: %+v", jobs)
			}
			all, err2 := tx.Jobs(storage.JobFilter{Queues: []string{"q"}, Kind: "power", Limit: 5})
			if len(all) != 2 {
				t.Errorf("all: %+v", all)
			}
			return errors.Join(err, err2)
		})
	})
}
