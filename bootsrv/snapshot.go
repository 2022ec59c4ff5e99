package bootsrv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/bootsrv/view"
)

// snapshotStore keeps the snapshot: in memory for the protocols, on disk for the next start. It takes in deltas.
type snapshotStore struct {
	file   string
	holder *view.Holder

	mu      sync.Mutex
	snap    api.Snapshot
	hosts   map[string]api.SnapHost
	changed chan struct{} // closed at each change
	dirty   bool
	wake    chan struct{}
}

func newSnapshotStore(dir string, holder *view.Holder) *snapshotStore {
	return &snapshotStore{file: filepath.Join(dir, "snapshot.json"), holder: holder, hosts: map[string]api.SnapHost{}, changed: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// load reads the snapshot of the last run. None, or one of another version, is no error: the region has a new one.
func (s *snapshotStore) load() error {
	raw, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var snap api.Snapshot
	if err := json.Unmarshal(raw, &snap); err != nil {
		return fmt.Errorf("the snapshot on disk cannot be read: %w", err)
	}
	if snap.Version != api.SnapshotVersion {
		return nil
	}
	snap.Since = 0
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.take(snap)
}

// apply takes in what the region sent.
func (s *snapshotStore) apply(snap api.Snapshot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.take(snap); err != nil {
		return err
	}
	s.dirty = true
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

var errWrongBase = errors.New("the region sent a change to a snapshot that this rack does not have")

func (s *snapshotStore) take(snap api.Snapshot) error {
	if snap.Version != api.SnapshotVersion {
		return fmt.Errorf("the region's snapshots are of version %d, this rack knows %d", snap.Version, api.SnapshotVersion)
	}
	if snap.Since != 0 && snap.Since != s.snap.Revision {
		return errWrongBase
	}
	if snap.Since == 0 {
		s.hosts = make(map[string]api.SnapHost, len(snap.Hosts))
	}
	for _, h := range snap.Hosts {
		s.hosts[h.SystemID] = h
	}
	for _, id := range snap.Gone {
		delete(s.hosts, id)
	}
	snap.Since, snap.Gone = 0, nil
	snap.Hosts = slices.SortedFunc(maps.Values(s.hosts), func(a, b api.SnapHost) int {
		if a.SystemID < b.SystemID {
			return -1
		}
		return 1
	})
	s.snap = snap
	s.holder.Set(view.New(snap))
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// loaded says whether there is a snapshot to serve from.
func (s *snapshotStore) loaded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snap.Version != 0
}

// waitRevision returns once the snapshot is at least as new as rev.
func (s *snapshotStore) waitRevision(ctx context.Context, rev int64) error {
	for {
		s.mu.Lock()
		now, loaded, changed := s.snap.Revision, s.snap.Version != 0, s.changed
		s.mu.Unlock()
		if loaded && now >= rev {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// save writes the snapshot if it changed since it was written last.
func (s *snapshotStore) save() error {
	s.mu.Lock()
	snap, dirty := s.snap, s.dirty
	s.dirty = false
	s.mu.Unlock()
	if !dirty {
		return nil
	}
	raw, err := json.Marshal(snap)
	if err == nil {
		err = writeFile(s.file, raw, 0o640)
	}
	if err != nil {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
	}
	return err
}

// saveEvery is the pause between two writes of the snapshot: a busy region changes it many times a second.
const saveEvery = time.Second

// keep writes the snapshot to disk after changes until the context ends, and then once more.
func (s *snapshotStore) keep(ctx context.Context, failed func(error)) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-s.wake:
			if err := s.save(); err != nil {
				failed(err)
			}
			_ = pause(ctx, saveEvery)
		}
	}
	if err := s.save(); err != nil {
		failed(err)
	}
}
