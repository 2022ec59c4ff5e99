package dhcp

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ingot-metal/ingot/bootsrv/view"
)

// State is what has become of a dynamic address.
type State string

// The states. An offer is held in memory only; all others are on disk before the client hears of them.
const (
	Offered  State = "offered"
	Bound    State = "bound"
	Released State = "released"
	Declined State = "declined" // a client found the address in use: quarantined until Expires
)

// Lease is one dynamic address and whoever has or last had it. Addresses are keyed by MAC address, never by client id: firmware,
// initramfs and operating system of one machine send different ids and must get the same address.
type Lease struct {
	Addr     netip.Addr `json:"addr"`
	MAC      string     `json:"mac"`
	VLANID   int64      `json:"vlan"`
	State    State      `json:"state"`
	Start    time.Time  `json:"start"`
	Expires  time.Time  `json:"expires"`
	Hostname string     `json:"hostname,omitempty"`
	// reported says that the end of this lease was told to the callback.
	reported bool
}

// active says whether the address is taken at the time.
func (l *Lease) active(now time.Time) bool {
	return l.State != Released && now.Before(l.Expires)
}

type clientKey struct {
	mac  string
	vlan int64
}

// Store holds the dynamic leases: in memory for answers, in a journal on disk for restarts. Bound, released and declined states
// are synced before Commit returns; many waiting callers share one sync. A torn last line, which a crash leaves, was never acknowledged and is dropped.
type Store struct {
	mu       sync.Mutex
	byAddr   map[netip.Addr]*Lease
	byClient map[clientKey]netip.Addr

	// Where to look for free addresses, for one view: ranges' addresses before their cursor are used or not to be leased; a VLAN in
	// fullUntil has none before that time.
	seen      *view.View
	cursor    map[view.Range]netip.Addr
	fullUntil map[int64]time.Time

	path string
	f    *os.File
	buf  []byte
	gen  uint64 // generation that buf belongs to
	done uint64 // generations on disk
	cond *sync.Cond
	busy bool
	size int64
	// After a failed write the journal's end is unknown: the next one rewrites it whole.
	broken bool
	failed uint64 // the newest generation that failed, and why
	err    error
	closed bool
}

// remember is how long an ended lease stays on disk, for its client to get the same address again.
const remember = 7 * 24 * time.Hour

// compactAt is the journal size beyond which it is rewritten when it is mostly history.
const compactAt = 4 << 20

// OpenStore reads the journal at path, creating it and its folder, and rewrites it without history. An empty path keeps leases in memory only.
func OpenStore(path string) (*Store, error) {
	s := &Store{
		byAddr: map[netip.Addr]*Lease{}, byClient: map[clientKey]netip.Addr{}, path: path,
		cursor: map[view.Range]netip.Addr{}, fullUntil: map[int64]time.Time{},
	}
	s.cond = sync.NewCond(&s.mu)
	if path == "" {
		return s, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		err = s.load(f)
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.compact(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Store) load(f io.Reader) error {
	r := bufio.NewReader(f)
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // a line without an end is a torn one
		}
		if err != nil {
			return err
		}
		var l Lease
		if err := json.Unmarshal(line, &l); err != nil {
			if _, perr := r.Peek(1); errors.Is(perr, io.EOF) {
				return nil
			}
			return fmt.Errorf("lease journal %s, line %d: %w", s.path, n, err)
		}
		if !l.Addr.IsValid() || l.MAC == "" {
			return fmt.Errorf("lease journal %s, line %d: no address or no MAC address", s.path, n)
		}
		s.put(&l)
	}
}

// put indexes l. The caller holds the lock or is alone.
func (s *Store) put(l *Lease) {
	if old := s.byAddr[l.Addr]; old != nil && (old.MAC != l.MAC || old.VLANID != l.VLANID) {
		k := clientKey{old.MAC, old.VLANID}
		if s.byClient[k] == l.Addr {
			delete(s.byClient, k)
		}
	}
	s.byAddr[l.Addr] = l
	k := clientKey{l.MAC, l.VLANID}
	if l.State == Declined {
		if s.byClient[k] == l.Addr {
			delete(s.byClient, k)
		}
		return
	}
	s.byClient[k] = l.Addr
}

// compact rewrites the journal with one line per address. The caller holds the lock.
func (s *Store) compact() error {
	tmp := s.path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for _, l := range s.byAddr {
		if l.State == Offered || time.Since(l.Expires) > remember {
			continue
		}
		line, err := json.Marshal(l)
		if err != nil {
			f.Close()
			return err
		}
		w.Write(line)
		w.WriteByte('\n')
	}
	if err := errors.Join(w.Flush(), f.Sync()); err != nil {
		f.Close()
		return err
	}
	if err := os.Rename(tmp, s.path); err != nil {
		f.Close()
		return err
	}
	if d, err := os.Open(filepath.Dir(s.path)); err == nil {
		d.Sync()
		d.Close()
	}
	if s.f != nil {
		s.f.Close()
	}
	s.f = f
	s.size, _ = f.Seek(0, io.SeekCurrent)
	return nil
}

// journal queues l for the disk and returns what to wait for. The caller holds the lock.
func (s *Store) journal(l *Lease) uint64 {
	if s.f == nil {
		return 0
	}
	line, err := json.Marshal(l)
	if err != nil { // cannot happen: plain fields
		return 0
	}
	s.buf = append(append(s.buf, line...), '\n')
	return s.gen + 1
}

// wait returns once generation g is on disk, or says why it is not. The first waiter writes for all. The caller holds the lock.
func (s *Store) wait(g uint64) error {
	for s.done < g {
		if s.closed {
			return os.ErrClosed
		}
		if s.busy {
			s.cond.Wait()
			continue
		}
		s.gen++
		upTo, err := s.gen, error(nil)
		if s.broken {
			s.buf = nil // the records are in memory, and compact writes them all
			if err = s.compact(); err == nil {
				s.broken = false
			}
		} else {
			s.busy = true
			out, f := s.buf, s.f
			s.buf = nil
			s.mu.Unlock()
			if _, err = f.Write(out); err == nil {
				err = f.Sync()
			}
			s.mu.Lock()
			s.busy = false
			s.broken = err != nil
			s.size += int64(len(out))
			if !s.broken && s.size > compactAt && s.size > int64(len(s.byAddr))*1024 {
				s.broken = s.compact() != nil // what was written stands; the next writer tries again
			}
		}
		s.done = upTo
		if err != nil {
			s.failed, s.err = upTo, fmt.Errorf("lease journal: %w", err)
		}
		s.cond.Broadcast()
	}
	if g != 0 && g <= s.failed {
		return s.err
	}
	return nil
}

// Close ends the store after writing what is queued.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f == nil || s.closed {
		return nil
	}
	var err error
	if len(s.buf) > 0 {
		err = s.wait(s.gen + 1)
	}
	for s.busy {
		s.cond.Wait()
	}
	s.closed = true
	s.cond.Broadcast()
	return errors.Join(err, s.f.Close())
}

// Leases returns a copy of all leases, offers included.
func (s *Store) Leases() []Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Lease, 0, len(s.byAddr))
	for _, l := range s.byAddr {
		out = append(out, *l)
	}
	return out
}

// MAC returns the MAC address that holds a dynamic address at the time, or "".
func (s *Store) MAC(a netip.Addr, now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.byAddr[a.Unmap()]; l != nil && l.active(now) && l.State == Bound {
		return l.MAC
	}
	return ""
}

// lastOf returns the lease that the client has or had, or nil. The caller holds the lock.
func (s *Store) lastOf(mac string, vlan int64) *Lease {
	a, ok := s.byClient[clientKey{mac, vlan}]
	if !ok {
		return nil
	}
	return s.byAddr[a]
}

// expired returns the leases that ended by themselves and were not reported yet, marking them reported.
func (s *Store) expired(now time.Time) []Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Lease
	for _, l := range s.byAddr {
		if l.State == Bound && !l.reported && !now.Before(l.Expires) {
			l.reported = true
			out = append(out, *l)
		}
	}
	return out
}
