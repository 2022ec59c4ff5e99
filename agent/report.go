package agent

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"
)

// Event is one status event, in the shape that cloud-init and curtin send.
type Event struct {
	Name        string      `json:"name"`
	Description string      `json:"description"`
	Type        string      `json:"event_type"` // start, progress or finish
	Origin      string      `json:"origin"`
	Timestamp   float64     `json:"timestamp"`
	Level       string      `json:"level,omitempty"`
	Result      string      `json:"result,omitempty"` // SUCCESS or FAIL
	Files       []EventFile `json:"files,omitempty"`
}

// EventFile is a file that travels with a finish event.
type EventFile struct {
	Path     string `json:"path"`
	Encoding string `json:"encoding"`
	Content  string `json:"content"`
}

// logBytes bounds the log that is kept for the final report; older lines go first.
const logBytes = 512 << 10

// logFlush is how often new log lines are sent.
const logFlush = 3 * time.Second

// Reporter sends events in order, in the background, and keeps the log. A server that does not answer never stops the work:
// an event that cannot be sent in a few tries is dropped (the outcome itself travels in a signal, which insists).
type Reporter struct {
	console io.Writer
	start   time.Time

	mu      sync.Mutex
	log     bytes.Buffer
	pending []string // log lines not sent yet
	stage   string
	queue   []Event
	wake    chan struct{}
	idle    chan struct{} // closed when the queue is empty
	md      *Metadata
	closed  bool
}

// NewReporter returns a reporter that writes the log to console. It sends nothing until Attach.
func NewReporter(console io.Writer) *Reporter {
	idle := make(chan struct{})
	close(idle)
	return &Reporter{console: console, start: time.Now(), wake: make(chan struct{}, 1), idle: idle}
}

// Attach tells the reporter where events go.
func (r *Reporter) Attach(md *Metadata) {
	r.mu.Lock()
	r.md = md
	r.mu.Unlock()
}

// Logf writes one line to the console and the log.
func (r *Reporter) Logf(format string, args ...any) {
	r.Line(fmt.Sprintf(format, args...))
}

// Line logs one or more lines as they are.
func (r *Reporter) Line(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range strings.Split(strings.TrimRight(s, "\n"), "\n") {
		l = printable(l)
		fmt.Fprintf(r.console, "ingot-agent [%7.2f] %s\r\n", time.Since(r.start).Seconds(), l)
		fmt.Fprintf(&r.log, "%s %s\n", time.Now().UTC().Format(time.RFC3339), l)
		if r.stage != "" && len(r.pending) < 200 {
			r.pending = append(r.pending, l)
		}
	}
	if n := r.log.Len(); n > logBytes {
		r.log.Next(n - logBytes)
	}
}

// printable keeps control characters of foreign programs off the console.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c == '\t' {
			return ' '
		}
		if !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, s)
}

// Log returns what has been logged.
func (r *Reporter) Log() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.log.Bytes())
}

// Start opens a stage: its start event, and the name under which log lines are sent from now on.
func (r *Reporter) Start(name, description string) {
	r.Logf("%s: %s", name, description)
	r.mu.Lock()
	r.stage = name
	r.mu.Unlock()
	r.send(Event{Name: name, Description: description, Type: "start"})
}

// Progress reports how far a stage is.
func (r *Reporter) Progress(name, description string) {
	r.send(Event{Name: name, Description: description, Type: "progress"})
}

// Finish closes a stage. err nil: success.
func (r *Reporter) Finish(name, description string, err error, files ...EventFile) {
	e := Event{Name: name, Description: description, Type: "finish", Result: "SUCCESS", Files: files}
	if err != nil {
		e.Result, e.Level, e.Description = "FAIL", "ERROR", clip(err.Error(), 4000)
		r.Logf("%s failed: %v", name, err)
	}
	r.flushLines()
	r.send(e)
}

// LogFile is the log as a file of a finish event.
func (r *Reporter) LogFile(path string) EventFile {
	return EventFile{Path: path, Encoding: "base64", Content: base64.StdEncoding.EncodeToString(r.Log())}
}

func (r *Reporter) send(e Event) {
	e.Origin = "ingot-agent"
	if e.Level == "" {
		e.Level = "INFO"
	}
	e.Timestamp = float64(time.Now().UnixMilli()) / 1000
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || len(r.queue) > 1000 {
		return
	}
	if len(r.queue) == 0 {
		r.idle = make(chan struct{})
	}
	r.queue = append(r.queue, e)
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// flushLines turns the log lines since the last flush into one event.
func (r *Reporter) flushLines() {
	r.mu.Lock()
	lines, stage := r.pending, r.stage
	r.pending = nil
	r.mu.Unlock()
	if len(lines) > 0 {
		r.Progress(stage+"/log", clip(strings.Join(lines, "\n"), 16000))
	}
}

// Run sends until ctx ends.
func (r *Reporter) Run(ctx context.Context) error {
	tick := time.NewTicker(logFlush)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			r.flushLines()
		case <-r.wake:
		}
		for {
			r.mu.Lock()
			if len(r.queue) == 0 || r.md == nil || r.md.Endpoint == "" {
				r.queue = nil
				select {
				case <-r.idle:
				default:
					close(r.idle)
				}
				r.mu.Unlock()
				break
			}
			e, md := r.queue[0], r.md
			r.mu.Unlock()
			if err := post(ctx, md, e); err != nil && ctx.Err() == nil {
				r.mu.Lock()
				fmt.Fprintf(r.console, "ingot-agent: event %s not sent: %v\r\n", e.Name, err)
				r.mu.Unlock()
			}
			r.mu.Lock()
			if len(r.queue) > 0 {
				r.queue = r.queue[1:]
			}
			r.mu.Unlock()
		}
	}
}

// Flush waits until everything queued has been sent or given up.
func (r *Reporter) Flush(ctx context.Context) {
	r.mu.Lock()
	idle := r.idle
	r.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

func post(ctx context.Context, md *Metadata, e Event) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	b = asciiJSON(b)
	_, err = md.Client.do(ctx, request{method: "POST", url: md.Endpoint, contentType: "application/json", body: b, creds: &md.Events, tries: 3})
	return err
}

// asciiJSON writes every non-ASCII character of a JSON text as \u escapes: the status endpoint takes ASCII only.
func asciiJSON(b []byte) []byte {
	var out bytes.Buffer
	for _, c := range string(b) {
		switch {
		case c < 0x80:
			out.WriteByte(byte(c))
		case c < 0x10000:
			fmt.Fprintf(&out, `\u%04x`, c)
		default:
			c -= 0x10000
			fmt.Fprintf(&out, `\u%04x\u%04x`, 0xd800+(c>>10), 0xdc00+(c&0x3ff))
		}
	}
	return out.Bytes()
}
