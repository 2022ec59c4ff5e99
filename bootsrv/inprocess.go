package bootsrv

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
)

// HandlerTransport is a transport that calls a handler in this process: one code path for a rack beside its region and one far
// away. The answer's body is passed on while it is written, and ends with an error when the handler panics.
func HandlerTransport(h http.Handler) http.RoundTripper { return handlerTransport{h} }

type handlerTransport struct{ h http.Handler }

func (t handlerTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	// A client's transport owns the body of its request; a server's handler must not see the client's request object.
	in := req.Clone(req.Context())
	in.RequestURI = req.URL.RequestURI()
	if in.Host == "" {
		in.Host = req.URL.Host
	}
	if in.RemoteAddr == "" {
		in.RemoteAddr = "127.0.0.1:0"
	}
	in.Proto, in.ProtoMajor, in.ProtoMinor = "HTTP/1.1", 1, 1
	if in.Body == nil {
		in.Body = http.NoBody
	}
	// Whoever closes the answer's body no longer wants it: the handler's context ends, as it does when a connection breaks.
	ctx, cancel := context.WithCancel(req.Context())
	in = in.WithContext(ctx)
	pr, pw := io.Pipe()
	w := &pipeWriter{header: http.Header{}, pw: pw, head: make(chan *http.Response, 1), body: &cancelBody{pr, cancel}, req: req}
	go func() {
		defer cancel()
		defer in.Body.Close()
		defer func() {
			if e := recover(); e != nil {
				w.abort()
				return
			}
			w.WriteHeader(http.StatusOK)
			pw.Close()
		}()
		t.h.ServeHTTP(w, in)
	}()
	select {
	case res, ok := <-w.head:
		if !ok {
			cancel()
			return nil, errors.New("the handler ended without an answer")
		}
		return res, nil
	case <-req.Context().Done():
		cancel()
		pr.CloseWithError(req.Context().Err())
		return nil, req.Context().Err()
	}
}

type cancelBody struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (b *cancelBody) Close() error {
	b.cancel()
	return b.PipeReader.Close()
}

// pipeWriter is the handler's side.
type pipeWriter struct {
	header http.Header
	pw     *io.PipeWriter
	head   chan *http.Response
	body   io.ReadCloser
	req    *http.Request
	once   sync.Once
}

func (w *pipeWriter) Header() http.Header { return w.header }

func (w *pipeWriter) WriteHeader(status int) {
	if status < 200 {
		return
	}
	w.once.Do(func() {
		h := w.header.Clone()
		res := &http.Response{Status: http.StatusText(status), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: h, Body: w.body, ContentLength: -1, Request: w.req}
		if n, err := parseLength(h.Get("Content-Length")); err == nil {
			res.ContentLength = n
		}
		if status == http.StatusNoContent || status == http.StatusNotModified {
			res.ContentLength = 0
		}
		w.head <- res
	})
}

func parseLength(s string) (int64, error) {
	if s == "" {
		return 0, errors.New("none")
	}
	var n int64
	for _, r := range s {
		if r < '0' || r > '9' || n > 1<<58 {
			return 0, errors.New("not a length")
		}
		n = n*10 + int64(r-'0')
	}
	return n, nil
}

func (w *pipeWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.req.Method == http.MethodHead {
		return len(b), nil
	}
	return w.pw.Write(b)
}

// Flush implements http.Flusher: a pipe holds nothing back.
func (w *pipeWriter) Flush() { w.WriteHeader(http.StatusOK) }

func (w *pipeWriter) abort() {
	w.once.Do(func() { close(w.head) })
	w.pw.CloseWithError(io.ErrUnexpectedEOF)
}
