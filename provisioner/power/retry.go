package power

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Action is what a power job asks of a driver.
type Action string

// The actions.
const (
	ActionOn    Action = "on"
	ActionOff   Action = "off"
	ActionCycle Action = "cycle"
	ActionQuery Action = "query"
)

// Want is the state in which the action must end; Unknown when it only asks.
func (a Action) Want() State {
	switch a {
	case ActionOn, ActionCycle:
		return On
	case ActionOff:
		return Off
	}
	return Unknown
}

// DefaultDelays is MAAS's waiting policy for drivers that name none.
var DefaultDelays = []time.Duration{1 * time.Second, 2 * time.Second, 2 * time.Second, 4 * time.Second, 6 * time.Second, 8 * time.Second, 12 * time.Second}

// Delayer is a Driver with a waiting policy of its own.
type Delayer interface{ Delays() []time.Duration }

// Reporter is a Driver that can tell the state right after an action, before it ends its conversation with the BMC. A machine whose
// boot is short can be off again by its own doing when somebody asks a moment later: it was on all the same.
type Reporter interface {
	Act(ctx context.Context, a Action, p Params) (State, error)
}

// Options are what Do needs beside the action. The zero value is the policy of the driver on the real clock.
type Options struct {
	Delays []time.Duration
	// Sleep waits for d or until ctx ends; tests put a clock of their own here.
	Sleep func(ctx context.Context, d time.Duration) error
}

// poll is how often the state is read while a delay passes: a machine that is up after half a second does not wait out four.
var poll = []time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second}

// Do carries out an action and sees to it that the machine arrives: for each delay it acts, waits, and asks for the state; an
// error that another try can cure leads to the next delay, others end it at once. It answers the state that was last seen.
func Do(ctx context.Context, d Driver, a Action, p Params, o Options) (State, error) {
	t := d.Describe()
	p = WithDefaults(t, p)
	if err := Missing(t, p); err != nil {
		return Unknown, err
	}
	if o.Delays == nil {
		if own, ok := d.(Delayer); ok {
			o.Delays = own.Delays()
		} else {
			o.Delays = DefaultDelays
		}
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	r := runner{d: d, t: t, p: p, o: o}
	if a == ActionQuery {
		return r.query(ctx)
	}
	return r.change(ctx, a)
}

type runner struct {
	d Driver
	t Type
	p Params
	o Options
}

// act tells the BMC, and answers the state right after it if that is known.
func (r runner) act(ctx context.Context, a Action) (State, error) {
	if d, ok := r.d.(Reporter); ok {
		return d.Act(ctx, a, r.p)
	}
	switch a {
	case ActionOn:
		return Unknown, r.d.On(ctx, r.p)
	case ActionOff:
		return Unknown, r.d.Off(ctx, r.p)
	case ActionCycle:
		return Unknown, r.d.Cycle(ctx, r.p)
	}
	return Unknown, &Error{Kind: ErrAction, Text: fmt.Sprintf("no such action %q", string(a))}
}

// query asks until the BMC gives an answer.
func (r runner) query(ctx context.Context) (State, error) {
	var last *Error
	for i := 0; ; i++ {
		st, err := r.d.Query(ctx, r.p)
		if err == nil {
			return st, nil
		}
		last = AsError(err, r.t, r.p)
		if last.Fatal() || ctx.Err() != nil || i == len(r.o.Delays) {
			return Unknown, last
		}
		if r.o.Sleep(ctx, r.o.Delays[i]) != nil {
			return Unknown, last
		}
	}
}

func (r runner) change(ctx context.Context, a Action) (State, error) {
	var last *Error
	seen := Unknown
	for _, delay := range r.o.Delays {
		now, err := r.act(ctx, a)
		if err != nil {
			last = AsError(err, r.t, r.p)
			if last.Fatal() || ctx.Err() != nil {
				return seen, last
			}
			if r.o.Sleep(ctx, delay) != nil {
				return seen, last
			}
			continue
		}
		if !r.t.Queryable {
			return Unknown, nil // nobody can tell
		}
		if now == a.Want() {
			return now, nil
		}
		st, err := r.await(ctx, a.Want(), delay)
		if err == nil {
			last = nil
			seen = st
			if st == a.Want() {
				return st, nil
			}
			continue
		}
		last = AsError(err, r.t, r.p)
		if last.Fatal() || ctx.Err() != nil {
			return seen, last
		}
	}
	if last != nil {
		return seen, last
	}
	if ctx.Err() != nil {
		return seen, &Error{Kind: ErrConn, Text: "the time for the action is over", Err: ctx.Err()}
	}
	from := On
	if a.Want() == On {
		from = Off
	}
	return seen, &Error{Kind: ErrAction, Text: fmt.Sprintf("BMC never transitioned from %s to %s", from, a.Want())}
}

// await reads the state at growing intervals until it is what is wanted or the delay has passed.
func (r runner) await(ctx context.Context, want State, delay time.Duration) (State, error) {
	var waited time.Duration
	for i := 0; ; i++ {
		d := min(poll[min(i, len(poll)-1)], delay-waited)
		if err := r.o.Sleep(ctx, d); err != nil {
			return Unknown, &Error{Kind: ErrConn, Text: "the time for the action is over", Err: err}
		}
		waited += d
		st, err := r.d.Query(ctx, r.p)
		if err == nil && st == want {
			return st, nil
		}
		var pe *Error
		if errors.As(err, &pe) && pe.Fatal() {
			return Unknown, err
		}
		if waited >= delay {
			return st, err
		}
	}
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
