package bootsrv

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// cache is boot content by its SHA-256, on disk, bounded, the least recently used goes first. What is not there is fetched from
// the region, once however many ask, and not served before its digest is right.
type cache struct {
	dir   string
	max   int64
	fetch func(ctx context.Context, sha string, offset int64) (io.ReadCloser, error)
	// shared opens content of a store in the same process; nil: none.
	shared func(sha string) (*os.File, error)
	// size is the expected size, or false when the snapshot does not name the content.
	size func(sha string) (int64, bool)
	log  *slog.Logger

	mu      sync.Mutex
	entries map[string]*entry
	total   int64
	flights map[string]*flight
	changed chan struct{}   // gets a word when what is held has changed
	life    context.Context // fetches outlive the request that began them, not the rack
	end     context.CancelFunc
	running sync.WaitGroup
}

type entry struct {
	size int64
	used time.Time
}

type flight struct {
	done chan struct{}
	err  error
}

// partial is the suffix of a fetch that is not complete; it is taken up again after a restart.
const partial = ".part"

func openCache(dir string, maxBytes int64, log *slog.Logger) (*cache, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	c := &cache{dir: dir, max: maxBytes, log: log, entries: map[string]*entry{}, flights: map[string]*flight{}, changed: make(chan struct{}, 1)}
	c.life, c.end = context.WithCancel(context.Background())
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() && validSHA(e.Name()) {
			c.entries[e.Name()] = &entry{size: fi.Size(), used: fi.ModTime()}
			c.total += fi.Size()
		}
	}
	return c, nil
}

func (c *cache) close() {
	c.end()
	c.running.Wait()
}

func validSHA(s string) bool {
	if len(s) != 2*sha256.Size {
		return false
	}
	for _, r := range s {
		if (r < '0' || r > '9') && (r < 'a' || r > 'f') {
			return false
		}
	}
	return true
}

// Open implements files.BlobSource.
func (c *cache) Open(ctx context.Context, sha string) (*os.File, error) {
	if !validSHA(sha) {
		return nil, fs.ErrNotExist
	}
	if c.shared != nil {
		if f, err := c.shared(sha); err == nil {
			return f, nil
		}
	}
	for range 3 { // it may be evicted between the fetch and the open
		f, err := c.open(sha)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		if err := c.get(ctx, sha); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("content %s does not stay in the cache: it is too small", sha)
}

func (c *cache) open(sha string) (*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[sha]
	if e == nil {
		return nil, fs.ErrNotExist
	}
	f, err := os.Open(filepath.Join(c.dir, sha))
	if errors.Is(err, fs.ErrNotExist) {
		c.drop(sha)
	}
	if err != nil {
		return nil, err
	}
	e.used = time.Now()
	_ = os.Chtimes(f.Name(), e.used, e.used) // so that the order survives a restart
	return f, nil
}

// drop forgets an entry. The caller holds the lock.
func (c *cache) drop(sha string) {
	if e := c.entries[sha]; e != nil {
		c.total -= e.size
		delete(c.entries, sha)
		c.tell()
	}
}

// tell says that what is held has changed.
func (c *cache) tell() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// held lists what is there, in order.
func (c *cache) held() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]string, 0, len(c.entries))
	for sha := range c.entries {
		out = append(out, sha)
	}
	slices.Sort(out)
	return out
}

// has says whether content is there, without using it.
func (c *cache) has(sha string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries[sha] != nil
}

// tidy removes what is left of fetches of content that nobody names any more.
func (c *cache) tidy() {
	list, err := os.ReadDir(c.dir)
	if err != nil {
		c.log.Warn("cache not tidied", "error", err)
		return
	}
	for _, e := range list {
		sha, ok := strings.CutSuffix(e.Name(), partial)
		if !ok || !validSHA(sha) {
			continue
		}
		if _, known := c.size(sha); known {
			continue
		}
		c.mu.Lock()
		if c.flights[sha] == nil {
			_ = os.Remove(filepath.Join(c.dir, e.Name()))
		}
		c.mu.Unlock()
	}
}

// get fetches content that is not there, or joins who does.
func (c *cache) get(ctx context.Context, sha string) error {
	c.mu.Lock()
	f := c.flights[sha]
	if f == nil && c.life.Err() != nil {
		c.mu.Unlock()
		return c.life.Err()
	}
	if f == nil {
		f = &flight{done: make(chan struct{})}
		c.flights[sha] = f
		c.running.Go(func() {
			f.err = c.download(c.life, sha)
			if f.err != nil {
				c.log.Warn("boot content not fetched", "sha256", sha, "error", f.err)
			}
			c.mu.Lock()
			delete(c.flights, sha)
			c.mu.Unlock()
			close(f.done)
		})
	}
	c.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.done:
		return f.err
	}
}

func (c *cache) download(ctx context.Context, sha string) error {
	want, ok := c.size(sha)
	if !ok {
		return fs.ErrNotExist
	}
	if c.fetch == nil {
		return errors.New("no region to fetch from")
	}
	c.mu.Lock()
	c.evict(sha, want) // the bound holds while it arrives, too
	c.mu.Unlock()
	part := filepath.Join(c.dir, sha+partial)
	out, err := os.OpenFile(part, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return err
	}
	defer out.Close()
	h := sha256.New()
	have, err := io.Copy(h, out) // what an earlier try brought
	if err != nil {
		return err
	}
	if have > want || want == 0 {
		have = 0
		h.Reset()
		if err := errors.Join(out.Truncate(0), seekStart(out)); err != nil {
			return err
		}
	}
	b := backoff{max: 5 * time.Second}
	for try := 0; have < want; try++ {
		n, err := c.piece(ctx, sha, have, want, io.MultiWriter(out, h))
		have += n
		if n > 0 {
			try, b.d = 0, 0
		}
		if err == nil {
			break
		}
		if refused(err, 404) {
			return fmt.Errorf("the region does not have it: %w", fs.ErrNotExist)
		}
		if try >= 3 {
			return err
		}
		if err := b.wait(ctx); err != nil {
			return err
		}
	}
	if hex.EncodeToString(h.Sum(nil)) != sha {
		_ = os.Remove(part)
		return errors.New("the digest of what the region sent is wrong")
	}
	if err := errors.Join(out.Sync(), os.Rename(part, filepath.Join(c.dir, sha))); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries[sha] = &entry{size: want, used: time.Now()}
	c.total += want
	c.evict(sha, 0)
	c.tell()
	return nil
}

func seekStart(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// piece copies from an offset to the end, at most what is expected.
func (c *cache) piece(ctx context.Context, sha string, from, want int64, w io.Writer) (int64, error) {
	body, err := c.fetch(ctx, sha, from)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	n, err := io.Copy(w, io.LimitReader(body, want-from))
	if err == nil && from+n < want {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// evict removes the least recently used until there is room for more bytes within the bound, but not what was just brought. The caller
// holds the lock. Files that are being sent stay readable until they are closed.
func (c *cache) evict(keep string, more int64) {
	if c.total+more <= c.max {
		return
	}
	var names []string
	for n := range c.entries {
		if n != keep {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return c.entries[a].used.Compare(c.entries[b].used) })
	for _, n := range names {
		if c.total+more <= c.max {
			return
		}
		if err := os.Remove(filepath.Join(c.dir, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.log.Warn("cached content not removed", "sha256", n, "error", err)
			continue
		}
		c.drop(n)
	}
}
