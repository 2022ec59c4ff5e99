package provisioner

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ingot-metal/ingot/storage"
)

// NonceWindow is how old a signed request may be.
const NonceWindow = 300 * time.Second

// ErrNonceUsed says that a signed request came before.
var ErrNonceUsed = errors.New("provisioner: nonce already used")

// nonceSet keeps every signature from being used twice, also across a restart and between regions, without a wait for the disk
// in requests that only read.
//
// Each nonce is in memory from its first use until its timestamp is too old to be accepted anyway. Requests that change
// something also put it into the store, and wait, before they run: the insert shares a commit with whatever else is being
// written, costs a fraction of the change itself, and its primary key is the judge between regions. Requests that only
// read hand their nonce to a writer in the background, which takes all there are at once. What a crash can lose is thus
// the nonce of a read in its last few milliseconds, and to repeat that read changes nothing. At the first use after a
// start the stored nonces are loaded.
type nonceSet struct {
	mu      sync.Mutex
	loaded  bool
	seen    map[nonceID]int64 // the signed timestamp
	pruned  time.Time
	pending []storage.Nonce
	writing chan struct{} // closed when the background writer has nothing more; nil when there is none
}

type nonceID struct{ token, nonce string }

// UseNonce takes the nonce of a request whose signature was good; ErrNonceUsed when it was taken before. changes says that the
// request may change something.
func (s *Service) UseNonce(ctx context.Context, tokenKey, nonce string, signed time.Time, changes bool) error {
	n := storage.Nonce{TokenKey: tokenKey, Nonce: nonce, Seen: signed}
	if err := s.takeNonce(ctx, n, !changes); err != nil {
		return err
	}
	if !changes {
		return nil
	}
	fresh, err := s.DB.UseNonce(ctx, n)
	if err == nil && !fresh {
		err = ErrNonceUsed
	}
	return err
}

// NonceUsed says whether a nonce was taken already, as far as memory tells.
func (s *Service) NonceUsed(ctx context.Context, tokenKey, nonce string) (bool, error) {
	set := &s.nonces
	set.mu.Lock()
	defer set.mu.Unlock()
	if err := s.loadNonces(ctx); err != nil {
		return false, err
	}
	_, used := set.seen[nonceID{tokenKey, nonce}]
	return used, nil
}

func (s *Service) takeNonce(ctx context.Context, n storage.Nonce, later bool) error {
	set := &s.nonces
	set.mu.Lock()
	defer set.mu.Unlock()
	if err := s.loadNonces(ctx); err != nil {
		return err
	}
	now := s.Now()
	if now.Sub(set.pruned) >= time.Minute {
		set.pruned = now
		oldest := now.Add(-NonceWindow - time.Second).Unix()
		for id, at := range set.seen {
			if at < oldest {
				delete(set.seen, id)
			}
		}
	}
	id := nonceID{n.TokenKey, n.Nonce}
	if _, used := set.seen[id]; used {
		return ErrNonceUsed
	}
	set.seen[id] = n.Seen.Unix()
	if later {
		set.pending = append(set.pending, n)
		if set.writing == nil {
			set.writing = make(chan struct{})
			go s.writeNonces(context.WithoutCancel(ctx), set.writing)
		}
	}
	return nil
}

// loadNonces reads the stored nonces once. The caller holds the lock.
func (s *Service) loadNonces(ctx context.Context) error {
	set := &s.nonces
	if set.loaded {
		return nil
	}
	var stored []storage.Nonce
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		stored, err = tx.Nonces(s.Now().Add(-NonceWindow - time.Second))
		return err
	})
	if err != nil {
		return err
	}
	set.seen = make(map[nonceID]int64, len(stored))
	for _, n := range stored {
		set.seen[nonceID{n.TokenKey, n.Nonce}] = n.Seen.Unix()
	}
	set.loaded, set.pruned = true, s.Now()
	return nil
}

func (s *Service) writeNonces(ctx context.Context, done chan struct{}) {
	defer close(done)
	set := &s.nonces
	for {
		set.mu.Lock()
		batch := set.pending
		if set.pending = nil; len(batch) == 0 {
			set.writing = nil
			set.mu.Unlock()
			return
		}
		set.mu.Unlock()
		err := s.DB.Write(storage.OnlyTakes(ctx), func(tx *storage.Tx) error { return tx.InsertNonces(batch) })
		if err != nil {
			s.Log.Error("nonces could not be stored", "count", len(batch), "error", err)
		}
	}
}

// Flush waits until what requests left for the background is stored. Call it when no more requests come.
func (s *Service) Flush() {
	s.nonces.mu.Lock()
	writing := s.nonces.writing
	s.nonces.mu.Unlock()
	if writing != nil {
		<-writing
	}
}

// Housekeep forgets what has served its time: nonces, sessions, idempotency keys, old jobs and boots. Run it now and then.
func (s *Service) Housekeep(ctx context.Context) error {
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		_, err1 := tx.PurgeNonces(s.Now().Add(-NonceWindow - time.Minute))
		_, err2 := tx.PurgeSessions()
		_, err3 := tx.PurgeIdempotency()
		_, err4 := tx.PurgeJobs(tx.Now().Add(-7 * 24 * time.Hour))
		_, err5 := tx.PurgeBoots(tx.Now().Add(-30 * 24 * time.Hour))
		return errors.Join(err1, err2, err3, err4, err5)
	})
}

// KeyOwner reads an API key and its user by the key's middle part; storage.ErrNotFound when nobody has it.
func (s *Service) KeyOwner(ctx context.Context, tokenKey string) (t storage.APIToken, u storage.User, err error) {
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { t, u, err = tx.Credentials(tokenKey); return err })
	return t, u, err
}

// KnownKeys says whether a consumer key belongs to anybody, and whether a token key belongs to a machine.
func (s *Service) KnownKeys(ctx context.Context, consumerKey, tokenKey string) (consumer, node bool, err error) {
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if consumer, err = tx.ConsumerExists(consumerKey); err != nil {
			return err
		}
		_, token, err := tx.NodeByToken(tokenKey)
		node = err == nil && token.ConsumerKey == consumerKey
		if errors.Is(err, storage.ErrNotFound) {
			err = nil
		}
		return err
	})
	return consumer, node, err
}
