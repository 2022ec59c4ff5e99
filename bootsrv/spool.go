package bootsrv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ingot-metal/ingot/api"
)

// The bounds of the spool.
const (
	spoolBatch   = 500                   // reports in one file and one request
	spoolCollect = 20 * time.Millisecond // how long reports are collected
	spoolFiles   = 2000                  // beyond this the oldest go: a million reports
)

// spool holds reports until the region has them: in files of one batch each, posted in order. It outlives the region's absence and
// the rack's restart; a crash of the rack can lose the reports of the last moment, never leases, whose journal is apart.
type spool struct {
	dir  string
	post func(ctx context.Context, batch json.RawMessage) error
	log  *slog.Logger
	max  time.Duration // longest pause between tries

	mu     sync.Mutex
	leases []api.LeaseReport
	boots  []api.BootStep
	wake   chan struct{}
	next   int64
	files  []string // on disk, the oldest first
}

func openSpool(dir string, log *slog.Logger, maxPause time.Duration) (*spool, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	s := &spool{dir: dir, log: log, max: maxPause, wake: make(chan struct{}, 1)}
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range list { // sorted by name
		var n int64
		if _, err := fmt.Sscanf(e.Name(), "%d.json", &n); err != nil || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		s.files = append(s.files, e.Name())
		s.next = max(s.next, n)
	}
	slices.Sort(s.files)
	return s, nil
}

func (s *spool) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *spool) addLease(l api.LeaseReport) {
	s.mu.Lock()
	s.leases = append(s.leases, l)
	s.mu.Unlock()
	s.poke()
}

// addBoot takes a step. A machine in a loop must not fill the memory while the disk is stuck, so there is a bound.
func (s *spool) addBoot(b api.BootStep) {
	s.mu.Lock()
	if len(s.boots) < spoolBatch*100 {
		s.boots = append(s.boots, b)
	}
	s.mu.Unlock()
	s.poke()
}

// flush writes what was collected to disk.
func (s *spool) flush() error {
	for {
		s.mu.Lock()
		r := api.RackReports{Leases: head(s.leases), Boots: head(s.boots)}
		s.mu.Unlock()
		if len(r.Leases)+len(r.Boots) == 0 {
			return nil
		}
		raw, err := json.Marshal(r)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%016d.json", s.next+1)
		tmp := filepath.Join(s.dir, ".new")
		if err := os.WriteFile(tmp, raw, 0o640); err != nil {
			return err
		}
		if err := os.Rename(tmp, filepath.Join(s.dir, name)); err != nil {
			return err
		}
		s.mu.Lock()
		s.next++
		s.leases, s.boots = s.leases[len(r.Leases):], s.boots[len(r.Boots):]
		s.files = append(s.files, name)
		s.mu.Unlock()
	}
}

func head[T any](list []T) []T {
	return slices.Clone(list[:min(len(list), spoolBatch)])
}

// run writes and posts until the context ends, and then writes once more.
func (s *spool) run(ctx context.Context) {
	b := backoff{max: s.max}
	s.poke() // what the last run left
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-s.wake:
		}
		_ = pause(ctx, spoolCollect)
		if err := s.flush(); err != nil {
			s.log.Error("reports cannot be spooled", "error", err)
			_ = pause(ctx, time.Second)
			s.poke()
			continue
		}
		s.trim()
		if err := s.send(ctx); err != nil {
			if ctx.Err() == nil {
				s.log.Debug("reports wait for the region", "error", err)
				_ = b.wait(ctx)
				s.poke()
			}
			continue
		}
		b.reset()
	}
	if err := s.flush(); err != nil {
		s.log.Error("reports cannot be spooled", "error", err)
	}
}

// trim drops the oldest batches when the region has been away for too long.
func (s *spool) trim() {
	dropped := 0
	for len(s.files) > spoolFiles {
		_ = os.Remove(filepath.Join(s.dir, s.files[0]))
		s.files = s.files[1:]
		dropped++
	}
	if dropped > 0 {
		s.log.Warn("oldest reports dropped", "batches", dropped)
	}
}

// send posts the batches in order. One that the region will never take is dropped.
func (s *spool) send(ctx context.Context) error {
	for len(s.files) > 0 {
		file := filepath.Join(s.dir, s.files[0])
		raw, err := os.ReadFile(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case !json.Valid(raw): // torn by a crash of the machine
			s.log.Warn("unreadable batch of reports dropped", "file", s.files[0])
		default:
			err := s.post(ctx, raw)
			if refused(err, 400) || refused(err, 413) {
				s.log.Error("the region refuses a batch of reports", "file", s.files[0], "error", err)
			} else if err != nil {
				return err
			}
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.files = s.files[1:]
	}
	return nil
}

// empty says whether everything was posted.
func (s *spool) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.leases)+len(s.boots) > 0 {
		return false
	}
	list, err := os.ReadDir(s.dir)
	return err == nil && !slices.ContainsFunc(list, func(e os.DirEntry) bool { return strings.HasSuffix(e.Name(), ".json") })
}
