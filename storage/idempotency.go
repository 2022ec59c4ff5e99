package storage

import (
	"context"
	"errors"
	"time"
)

const idempotencyColumns = "user_id, key, request, status, content_type, body, created"

func scanIdempotencyKey(s scanner) (k IdempotencyKey, err error) {
	err = s.Scan(&k.UserID, &k.Key, &k.Request, &k.Status, &k.ContentType, &k.Body, scanTime(&k.Created))
	return k, err
}

// idempotencyAge is how long the answer to a key is kept; idempotencyStuck how long a call may run before its key is taken
// to belong to a process that died.
const (
	idempotencyAge   = 24 * time.Hour
	idempotencyStuck = 10 * time.Minute
)

// Pending says that the call has no answer: it still runs, or died before its answer was stored.
func (k IdempotencyKey) Pending() bool { return k.Status <= idempotencyDone }

// ReserveIdempotency takes a key for a call. Nil says that the key is the caller's: do the work, then FinishIdempotency or
// ReleaseIdempotency. Otherwise it answers the row of the earlier call: Pending while that
// still runs or its answer is lost, a different Request when the key was used for something else.
func (tx *Tx) ReserveIdempotency(userID int64, key, request string) (*IdempotencyKey, error) {
	now := tx.Now()
	if _, err := tx.Exec("delete from idempotency_keys where user_id = $1 and key = $2 and (created < $3 or (status = 0 and created < $4))",
		userID, key, now.Add(-idempotencyAge), now.Add(-idempotencyStuck)); err != nil {
		return nil, err
	}
	n, err := tx.Exec("insert into idempotency_keys (user_id, key, request, created) values ($1, $2, $3, $4) on conflict do nothing", userID, key, request, now)
	if err != nil || n == 1 {
		return nil, err
	}
	k, err := row(tx, scanIdempotencyKey, "select "+idempotencyColumns+" from idempotency_keys where user_id = $1 and key = $2", userID, key)
	if err != nil {
		return nil, err
	}
	return &k, nil
}

// idempotencyDone is the status of a key whose call has committed something, while its answer is not stored: it still runs, or
// its process died in between. Such a key is never run again.
const idempotencyDone = 1

type idempotencyMark struct {
	userID int64
	key    string
}

// WithIdempotency makes every Write of ctx note, in its own transaction, that the call which holds the key has changed something.
// Whatever happens to the process after that, the call is not carried out twice.
func WithIdempotency(ctx context.Context, userID int64, key string) context.Context {
	return context.WithValue(ctx, idempotencyMark{}, idempotencyMark{userID, key})
}

// noting adds the note of WithIdempotency to a write function.
func noting(ctx context.Context, fn func(*Tx) error) func(*Tx) error {
	m, ok := ctx.Value(idempotencyMark{}).(idempotencyMark)
	if !ok {
		return fn
	}
	return func(tx *Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		_, err := tx.Exec("update idempotency_keys set status = $1 where user_id = $2 and key = $3 and status = 0", idempotencyDone, m.userID, m.key)
		return err
	}
}

// FinishIdempotency stores the answer of the call that holds the key.
func (tx *Tx) FinishIdempotency(userID int64, key string, status int, contentType string, body []byte) error {
	if status <= idempotencyDone {
		return errors.New("storage: an answer needs a status of HTTP")
	}
	if body == nil {
		body = []byte{}
	}
	return tx.guarded("update idempotency_keys set status = $1, content_type = $2, body = $3 where user_id = $4 and key = $5 and status <= $6",
		status, contentType, body, userID, key, idempotencyDone)
}

// ReleaseIdempotency gives a key back when the call changed nothing and may be made again.
func (tx *Tx) ReleaseIdempotency(userID int64, key string) error {
	_, err := tx.Exec("delete from idempotency_keys where user_id = $1 and key = $2 and status = 0", userID, key)
	return err
}

// PurgeIdempotency forgets the keys that are older than a day.
func (tx *Tx) PurgeIdempotency() (int64, error) {
	return tx.Exec("delete from idempotency_keys where created < $1", tx.Now().Add(-idempotencyAge))
}
