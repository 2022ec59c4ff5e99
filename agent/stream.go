package agent

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
)

// maxTail bounds what may follow the end of an archive inside its compression: padding, not a bomb.
const maxTail = 1 << 30

// imageStream is an image on its way: received, checked, decompressed. Its parts run at the same time.
type imageStream struct {
	io.Reader // decompressed
	raw       *readAhead
	closers   []func()
}

// openStream begins to receive an image. As raw it is taken as it is, else decompressed by what it turns out to be.
func openStream(ctx context.Context, d io.Reader, raw bool) (*imageStream, error) {
	s := &imageStream{raw: newReadAhead(d)}
	s.closers = append(s.closers, s.raw.Close)
	if s.Reader = s.raw; raw {
		return s, nil
	}
	z, done, err := decompressWith(ctx, s.raw)
	if err != nil {
		s.close()
		return nil, err
	}
	s.Reader, s.closers = z, append(s.closers, done)
	return s, nil
}

// ahead decompresses in a goroutine of its own, for readers who take small pieces.
func (s *imageStream) ahead() {
	a := newReadAhead(s.Reader)
	s.Reader, s.closers = a, append(s.closers, a.Close)
}

// finish reads what is left. Only when it returns nil has the whole image been received and its digest been right.
func (s *imageStream) finish() error {
	n, err := io.Copy(io.Discard, io.LimitReader(s.Reader, maxTail+1))
	if err == nil && n > maxTail {
		err = fmt.Errorf("%w: more than %d bytes follow its end", errArchive, maxTail)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, s.raw)
	}
	return err
}

func (s *imageStream) close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
	s.closers = nil
}

// decompressWith is decompress, with the environment's own xz where there is one: it knows every filter, decodes blocks in parallel and
// is several times as fast.
func decompressWith(ctx context.Context, r io.Reader) (io.Reader, func(), error) {
	br := bufio.NewReaderSize(r, 1<<20)
	m, _ := br.Peek(6) // decompress says what is wrong
	if xz := find("/", "xz"); xz != "" && bytes.HasPrefix(m, []byte{0xfd, '7', 'z', 'X', 'Z', 0}) {
		return filter(ctx, br, xz, "--decompress", "--stdout", "--threads=0", "--memlimit-decompress=1GiB", "--quiet")
	}
	return decompress(br)
}

// filter pipes r through a program. What goes wrong on either side of it is an error of the reader that it returns, the source's own first.
func filter(ctx context.Context, r io.Reader, program string, args ...string) (io.Reader, func(), error) {
	src := &errReader{r: r}
	pr, pw := io.Pipe()
	var words tailBuffer
	ctx, cancel := context.WithCancel(ctx)
	c := exec.CommandContext(ctx, program, args...)
	c.Env = []string{"LC_ALL=C"}
	c.Stdout, c.Stderr = pw, &words
	in, err := c.StdinPipe()
	if err != nil {
		cancel()
		return nil, nil, err
	}
	if err := c.Start(); err != nil {
		cancel()
		return nil, nil, err
	}
	done := make(chan struct{})
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		_, _ = io.CopyBuffer(struct{ io.Writer }{in}, src, make([]byte, 256<<10)) // src keeps its error; the program's end says the rest
		in.Close()
	}()
	go func() {
		defer close(done)
		err := c.Wait()
		if err != nil { // a program that stopped early leaves the source unread: do not wait for it
			select {
			case <-fed:
			default:
			}
		}
		if serr := src.failure(); serr != nil {
			err = serr
		} else if err != nil {
			err = &StepError{Command: program, Output: words.lines(), Err: fmt.Errorf("%w: %w", errArchive, err)}
		}
		pw.CloseWithError(err) // nil: EOF
	}()
	return pr, func() {
		pr.CloseWithError(errors.New("closed"))
		cancel()
		<-done
		<-fed // the source is not ours afterwards
	}, nil
}

// errReader remembers why its source ended.
type errReader struct {
	r   io.Reader
	mu  sync.Mutex
	err error
}

func (e *errReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && err != io.EOF {
		e.mu.Lock()
		e.err = err
		e.mu.Unlock()
	}
	return n, err
}

func (e *errReader) failure() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// tailBuffer keeps the end of what a program says.
type tailBuffer struct {
	mu sync.Mutex
	b  []byte
}

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.b = append(t.b, p...); len(t.b) > 4096 {
		t.b = append([]byte(nil), t.b[len(t.b)-2048:]...)
	}
	return len(p), nil
}

func (t *tailBuffer) lines() (out []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range strings.Split(string(t.b), "\n") {
		if l = strings.TrimSpace(printable(l)); l != "" {
			out = append(out, clip(l, 300))
		}
	}
	return out[max(0, len(out)-keepLines):]
}
