package provisioner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ingot-metal/ingot/provisioner/simplestreams"
)

// ImageConfig says how images are mirrored. Its zero value is usable.
type ImageConfig struct {
	// MirrorDirs are the folders below which file:// sources may lie. The API is remote: without them it could make the region read
	// whatever its user can.
	MirrorDirs []string
	// Parallel is how many files are fetched at once; 0 is 4.
	Parallel int
	// Stall is how long a server may send nothing; 0 is a minute.
	Stall time.Duration
	// Piece is how many bytes are made durable, and counted as progress, at once; 0 is 16 MiB.
	Piece int64
	// Tries is how often a file is asked for again without any progress; 0 is 4.
	Tries int
	// Pause is between two tries, twice as long each time; 0 is a second.
	Pause time.Duration
}

func (c ImageConfig) defaults() ImageConfig {
	if c.Parallel <= 0 {
		c.Parallel = 4
	}
	if c.Stall <= 0 {
		c.Stall = time.Minute
	}
	if c.Piece <= 0 {
		c.Piece = 16 << 20
	}
	if c.Tries <= 0 {
		c.Tries = 4
	}
	if c.Pause <= 0 {
		c.Pause = time.Second
	}
	return c
}

// mirror reads files of an image mirror by their paths, which simplestreams.CleanPath has passed.
type mirror interface {
	// open returns the bytes from an offset on. An answer that another try cannot better is a refusal.
	open(ctx context.Context, path string, offset int64) (io.ReadCloser, error)
	close()
}

// refusal is an error of a mirror that another try cannot better.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func refusedBy(err error) bool { return errors.As(err, new(refusal)) }

// mirrorRoot is the root of a mirror in its source's URL, which may name the index itself.
func mirrorRoot(text string) string {
	text = strings.TrimRight(text, "/")
	for _, index := range []string{simplestreams.SignedIndex, simplestreams.PlainIndex} {
		if root, ok := strings.CutSuffix(text, "/"+index); ok {
			return strings.TrimRight(root, "/")
		}
	}
	return text
}

// fileMirrorPath is the folder of a file:// source, when it lies below one of those that the operator allowed.
func fileMirrorPath(text string, allowed []string) (string, error) {
	u, err := url.Parse(mirrorRoot(text))
	if err != nil || u.Scheme != "file" || u.Host != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !filepath.IsAbs(u.Path) || strings.ContainsRune(u.Path, 0) {
		return "", errors.New("Enter a valid URL.")
	}
	dir := filepath.Clean(u.Path)
	for _, a := range allowed {
		if a = filepath.Clean(a); dir == a || strings.HasPrefix(dir, strings.TrimSuffix(a, "/")+"/") {
			return dir, nil
		}
	}
	if len(allowed) == 0 {
		return "", errors.New("This region reads no mirrors from its own disk: start it with --image-mirror FOLDER to allow that.")
	}
	return "", errors.New("This region reads mirrors only below the folders that it was started with (--image-mirror).")
}

// openMirror returns the mirror of a source's URL. proxy is the address of an HTTP proxy, "" for the environment's.
func openMirror(text string, c ImageConfig, proxy string, direct bool) (mirror, error) {
	if strings.HasPrefix(text, "file:") {
		return openFileMirror(text, c.MirrorDirs)
	}
	if !webURL(text, "http", "https") {
		return nil, refusal{errors.New("the URL of the source is not one of http or https")}
	}
	base, err := url.Parse(mirrorRoot(text))
	if err != nil {
		return nil, refusal{err}
	}
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: c.Stall,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   c.Parallel,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true, // sizes and digests are those of the bytes as they lie there
	}
	switch {
	case direct:
		t.Proxy = nil
	case proxy != "":
		p, err := url.Parse(proxy)
		if err != nil {
			return nil, refusal{errors.New("the setting http_proxy is no URL")}
		}
		t.Proxy = http.ProxyURL(p)
	}
	return &httpMirror{base: base, stall: c.Stall, transport: t, client: &http.Client{Transport: t, CheckRedirect: checkRedirect}}, nil
}

// checkRedirect lets a mirror send us to another place of the web, but never from an encrypted one to one that is not.
func checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= 5:
		return errors.New("the mirror redirects too often")
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return fmt.Errorf("the mirror redirects to %s", req.URL.Scheme)
	case via[0].URL.Scheme == "https" && req.URL.Scheme == "http":
		return errors.New("the mirror redirects from https to http")
	}
	return nil
}

type httpMirror struct {
	base      *url.URL
	stall     time.Duration
	transport *http.Transport
	client    *http.Client
}

func (m *httpMirror) close() { m.transport.CloseIdleConnections() }

func (m *httpMirror) open(ctx context.Context, path string, offset int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.base.JoinPath(path).String(), nil)
	if err != nil {
		cancel(nil)
		return nil, refusal{err}
	}
	req.Header.Set("User-Agent", "ingot-images")
	if offset > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	res, err := m.client.Do(req)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	body := &stallReader{body: res.Body, cancel: cancel, ctx: ctx, stall: m.stall}
	body.timer = time.AfterFunc(m.stall, body.stalled)
	fail := func(err error) (io.ReadCloser, error) {
		body.Close()
		return nil, err
	}
	switch {
	case offset > 0 && res.StatusCode == http.StatusPartialContent:
		if !strings.HasPrefix(res.Header.Get("Content-Range"), "bytes "+strconv.FormatInt(offset, 10)+"-") {
			return fail(fmt.Errorf("%s: the mirror answered with another range than was asked for", path))
		}
	case res.StatusCode == http.StatusOK:
		// A server without ranges begins at the beginning.
		if _, err := io.CopyN(io.Discard, body, offset); err != nil {
			return fail(fmt.Errorf("%s: %w", path, err))
		}
	case offset > 0 && res.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return fail(refusal{fmt.Errorf("%s ends after %d bytes, before the size that its product file names", path, offset)})
	case res.StatusCode == http.StatusRequestTimeout || res.StatusCode == http.StatusTooManyRequests || res.StatusCode >= 500:
		return fail(fmt.Errorf("%s: the mirror answered %s", path, statusText(res.StatusCode)))
	default:
		return fail(refusal{fmt.Errorf("%s: the mirror answered %s", path, statusText(res.StatusCode))})
	}
	return body, nil
}

func statusText(code int) string {
	return strings.TrimSpace(strconv.Itoa(code) + " " + http.StatusText(code))
}

// stallReader ends a body that yields nothing for too long.
type stallReader struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	stall  time.Duration
	timer  *time.Timer
	once   sync.Once
}

func (r *stallReader) stalled() {
	r.cancel(fmt.Errorf("the mirror sent nothing for %s", r.stall))
}

func (r *stallReader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	if n > 0 {
		r.timer.Reset(r.stall)
	}
	if err != nil && err != io.EOF && r.ctx.Err() != nil {
		err = context.Cause(r.ctx)
	}
	return n, err
}

func (r *stallReader) Close() error {
	var err error
	r.once.Do(func() {
		r.timer.Stop()
		r.cancel(nil)
		err = r.body.Close()
	})
	return err
}

// fileMirror is a mirror in a folder of this machine.
type fileMirror struct{ root *os.Root }

func openFileMirror(text string, allowed []string) (mirror, error) {
	dir, err := fileMirrorPath(text, allowed)
	if err != nil {
		return nil, refusal{err}
	}
	// The allowed folder is opened first: a symbolic link below it leads nowhere else.
	for _, a := range allowed {
		rel, err := filepath.Rel(filepath.Clean(a), dir)
		if err != nil || rel != "." && !filepath.IsLocal(rel) {
			continue
		}
		top, err := os.OpenRoot(filepath.Clean(a))
		if err != nil {
			return nil, err
		}
		if rel == "." {
			return fileMirror{top}, nil
		}
		root, err := top.OpenRoot(rel)
		return fileMirror{root}, errors.Join(err, top.Close())
	}
	return nil, refusal{errors.New("the folder of the source is not an allowed one")}
}

func (m fileMirror) close() { _ = m.root.Close() }

func (m fileMirror) open(_ context.Context, path string, offset int64) (io.ReadCloser, error) {
	f, err := m.root.OpenFile(filepath.FromSlash(path), os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe does not hold us up
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, refusal{fmt.Errorf("%s: there is no such file in the mirror", path)}
		}
		return nil, refusal{err}
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = refusal{fmt.Errorf("%s: not a regular file", path)}
	}
	if err == nil {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readSmall reads a document of a mirror whole, at most max bytes, with a few tries.
func readSmall(ctx context.Context, m mirror, c ImageConfig, path string, limit int64) ([]byte, error) {
	pause := c.Pause
	for try := 1; ; try++ {
		raw, err := readOnce(ctx, m, path, limit)
		if err == nil || refusedBy(err) || try >= c.Tries || ctx.Err() != nil {
			return raw, err
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
		pause *= 2
	}
}

func readOnce(ctx context.Context, m mirror, path string, limit int64) ([]byte, error) {
	body, err := m.open(ctx, path, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if int64(len(raw)) > limit {
		return nil, refusal{fmt.Errorf("%s is larger than %d bytes", path, limit)}
	}
	return raw, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
