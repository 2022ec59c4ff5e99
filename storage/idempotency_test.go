package storage_test

import (
	"errors"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// A call that committed something is never carried out again, though its process died before the answer was stored.
func TestIdempotencyOutlivesACrash(t *testing.T) {
	c := newClock()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		reserve := func() (k *storage.IdempotencyKey) {
			write(t, db, func(tx *storage.Tx) (err error) { k, err = tx.ReserveIdempotency(1, "key", "POST /x abc"); return err })
			return k
		}
		if k := reserve(); k != nil {
			t.Fatalf("the first: %+v", k)
		}
		held := storage.WithIdempotency(ctx, 1, "key")
		undone := errors.New("undone")
		if err := db.Write(held, func(*storage.Tx) error { return undone }); !errors.Is(err, undone) {
			t.Fatal(err)
		}
		c.add(11 * time.Minute)
		if k := reserve(); k != nil {
			t.Errorf("nothing was committed, yet the key is taken: %+v", k)
		}
		if err := db.Write(held, func(tx *storage.Tx) error { return tx.PutSetting("x", []byte("1")) }); err != nil {
			t.Fatal(err)
		}
		c.add(11 * time.Minute) // the process died here
		write(t, db, func(tx *storage.Tx) error { return tx.ReleaseIdempotency(1, "key") })
		if k := reserve(); k == nil || !k.Pending() {
			t.Errorf("after the crash: %+v", k)
		}
		write(t, db, func(tx *storage.Tx) error { return tx.FinishIdempotency(1, "key", 200, "text/plain", []byte("OK")) })
		if k := reserve(); k == nil || k.Pending() || k.Status != 200 {
			t.Errorf("with its answer: %+v", k)
		}
	}, storagetest.WithNow(c.now))
}
