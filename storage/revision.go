package storage

import (
	"context"
	"sync"
	"time"
)

// revisionState is the change feed: the number of the last committed change, and those who wait for a higher one.
type revisionState struct {
	channel string // PostgreSQL: the NOTIFY channel
	lock    int64  // PostgreSQL: the key of the advisory write lock

	mu      sync.Mutex
	current int64
	moved   chan struct{} // closed when current grows
}

func (r *revisionState) advance(to int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if to <= r.current {
		return
	}
	r.current = to
	if r.moved != nil {
		close(r.moved)
		r.moved = nil
	}
}

func (r *revisionState) get() (int64, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.moved == nil {
		r.moved = make(chan struct{})
	}
	return r.current, r.moved
}

// Revision is the number of this change. The first call of a transaction takes the next number, later calls repeat it; numbers
// become visible in their order. After the commit everybody in WaitRevision wakes. In a Read it is the number of the snapshot.
func (tx *Tx) Revision() (int64, error) {
	if tx.revision != 0 {
		return tx.revision, nil
	}
	if !tx.writable {
		return tx.CurrentRevision()
	}
	var n int64
	if err := tx.get([]any{&n}, nextRevision); err != nil {
		return 0, err
	}
	tx.revision = n
	return n, nil
}

const nextRevision = "update revision set value = value + 1 where id = 1 returning value"

// CurrentRevision is the number of the last change that the transaction sees. It takes no number.
func (tx *Tx) CurrentRevision() (n int64, err error) {
	err = tx.get([]any{&n}, "select value from revision where id = 1")
	return n, err
}

// pollEvery is how long a change that nobody announced (another process on the same file, a lost connection) may stay unseen.
const pollEvery = 2 * time.Second

// WaitRevision blocks until the committed revision is above since, and answers it; or until ctx ends.
func (db *DB) WaitRevision(ctx context.Context, since int64) (int64, error) {
	for {
		now, moved := db.revision.get()
		if now > since {
			return now, nil
		}
		poll := time.NewTimer(pollEvery)
		select {
		case <-ctx.Done():
			poll.Stop()
			return now, ctx.Err()
		case <-moved:
		case <-poll.C:
			if err := db.refreshRevision(ctx); err != nil {
				return now, err
			}
		}
		poll.Stop()
	}
}

func (db *DB) refreshRevision(ctx context.Context) error {
	return db.Read(ctx, func(tx *Tx) error {
		n, err := tx.CurrentRevision()
		if err == nil {
			db.revision.advance(n)
		}
		return err
	})
}
