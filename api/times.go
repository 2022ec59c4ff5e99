package api

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The three ways in which MAAS writes times. Each type is a time.Time that reads and writes its own form, in UTC.
const (
	modelLayout = "2006-01-02T15:04:05.000Z"
	mailLayout  = "Mon, 02 Jan 2006 15:04:05 -0700"
	logLayout   = "Mon, 02 Jan. 2006 15:04:05"
)

// ModelTime is a model's time stamp: 2018-12-04T18:11:31.894Z.
type ModelTime struct{ time.Time }

// MailTime is a script result's time stamp: Thu, 06 Dec 2018 21:26:18 +0000.
type MailTime struct{ time.Time }

// LogTime is an event's time stamp: Fri, 07 Dec. 2018 20:11:08.
type LogTime struct{ time.Time }

// T1 makes a ModelTime.
func T1(t time.Time) ModelTime { return ModelTime{t} }

// T1Opt makes a ModelTime, or nil of the zero time.
func T1Opt(t time.Time) *ModelTime {
	if t.IsZero() {
		return nil
	}
	return &ModelTime{t}
}

// T2 makes a MailTime.
func T2(t time.Time) MailTime { return MailTime{t} }

// T2Opt makes a MailTime, or nil of the zero time.
func T2Opt(t time.Time) *MailTime {
	if t.IsZero() {
		return nil
	}
	return &MailTime{t}
}

// T3 makes a LogTime.
func T3(t time.Time) LogTime { return LogTime{t} }

// MarshalJSON writes the time in its form.
func (t ModelTime) MarshalJSON() ([]byte, error) { return quoteTime(t.Time, modelLayout), nil }

// MarshalJSON writes the time in its form.
func (t MailTime) MarshalJSON() ([]byte, error) { return quoteTime(t.Time, mailLayout), nil }

// MarshalJSON writes the time in its form.
func (t LogTime) MarshalJSON() ([]byte, error) { return quoteTime(t.Time, logLayout), nil }

// UnmarshalJSON reads the form that MarshalJSON writes; servers before time zone support leave the Z out.
func (t *ModelTime) UnmarshalJSON(b []byte) (err error) {
	t.Time, err = unquoteTime(b, modelLayout, strings.TrimSuffix(modelLayout, "Z"), time.RFC3339Nano)
	return err
}

// UnmarshalJSON reads the form that MarshalJSON writes.
func (t *MailTime) UnmarshalJSON(b []byte) (err error) {
	t.Time, err = unquoteTime(b, mailLayout)
	return err
}

// UnmarshalJSON reads the form that MarshalJSON writes.
func (t *LogTime) UnmarshalJSON(b []byte) (err error) {
	t.Time, err = unquoteTime(b, logLayout)
	return err
}

func quoteTime(t time.Time, layout string) []byte {
	b := append(make([]byte, 0, len(layout)+2), '"')
	return append(t.UTC().AppendFormat(b, layout), '"')
}

func unquoteTime(b []byte, layouts ...string) (time.Time, error) {
	s, err := strconv.Unquote(string(b))
	if err != nil {
		return time.Time{}, fmt.Errorf("time %s is not a JSON string", b)
	}
	for _, l := range layouts {
		if t, err := time.Parse(l, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("time %q has not the form %s", s, layouts[0])
}

// Duration writes a duration as MAAS does: [D day[s], ]H:MM:SS.
func Duration(d time.Duration) string {
	s := int64(d / time.Second)
	days, s := s/86400, s%86400
	text := fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	switch {
	case days == 1:
		return "1 day, " + text
	case days > 1:
		return fmt.Sprintf("%d days, %s", days, text)
	}
	return text
}

type baseURLKey struct{}

// WithBaseURL notes scheme and host by which the caller reached the server ("http://host:5240"), for answers that must carry them.
func WithBaseURL(ctx context.Context, base string) context.Context {
	return context.WithValue(ctx, baseURLKey{}, base)
}

// BaseURL is scheme and host by which the caller reached the server; "" outside a request.
func BaseURL(ctx context.Context) string {
	s, _ := ctx.Value(baseURLKey{}).(string)
	return s
}
