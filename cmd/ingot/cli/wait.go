package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/api/client"
)

// goal is what a waiting command waits for.
type goal struct {
	rest  []int  // the statuses that are a success; none: each in which a machine rests, failures apart
	power string // a power state instead
	gone  bool   // a machine that is deleted is a success
}

// waits are the operations that can wait.
var waits = map[string]goal{
	"machine.commission":       {rest: []int{statusReady}},
	"machine.deploy":           {rest: []int{statusDeployed}},
	"machine.release":          {rest: []int{statusReady}, gone: true},
	"machines.release":         {rest: []int{statusReady}, gone: true},
	"machine.rescue_mode":      {rest: []int{statusRescueMode}},
	"machine.exit_rescue_mode": {},
	"machine.test":             {},
	"machine.abort":            {},
	"machines.create":          {},
	"machines.accept":          {},
	"machines.accept_all":      {},
	"machine.power_on":         {power: "on"},
	"machine.power_off":        {power: "off"},
}

// The statuses of the wire.
const (
	statusReady      = 4
	statusDeployed   = 6
	statusRescueMode = 16
)

var (
	passing = []int{1, 9, 12, 14, 17, 19, 21} // commissioning, deploying, releasing, erasing, entering and leaving rescue mode, testing
	failed  = []int{2, 11, 13, 15, 18, 20, 22}
)

// reached says whether a machine is where it was to go; an error, that it will not get there.
func (g goal) reached(m *yaml.Node) (bool, error) {
	if g.power != "" {
		switch state := text(m, "power_state"); state {
		case g.power:
			return true, nil
		case "error":
			return false, errors.New("the power driver reports an error")
		}
		return false, nil
	}
	status, err := strconv.Atoi(text(m, "status"))
	switch {
	case err != nil:
		return false, errors.New("the server tells no status")
	case slices.Contains(passing, status):
		return false, nil
	case slices.Contains(failed, status), len(g.rest) > 0 && !slices.Contains(g.rest, status):
		return false, fmt.Errorf("it is in the status %q", clean(text(m, "status_name")))
	}
	return true, nil
}

// waiter watches machines until each is done.
type waiter struct {
	*call
	goal    goal
	timeout time.Duration
	asked   string // the machine that the command names
	watched []*watched
}

// watched is one machine as it was seen last.
type watched struct {
	id, name, state string
	event           int64 // the newest that was told
	mute            bool  // the server tells no events
	troubles        []string
	node            *yaml.Node
}

// waiter notes where the events stand before the operation begins, so that all of its own are told.
func (c *call) waiter(ctx context.Context, g goal, r client.Request, timeout time.Duration) *waiter {
	w := &waiter{call: c, goal: g, timeout: timeout, asked: r.Path["system_id"]}
	ids := r.Form["machines"]
	if w.asked != "" {
		ids = []string{w.asked}
	}
	for _, id := range ids {
		m := &watched{id: id}
		if page, err := w.events(ctx, m, "limit", "1"); err == nil && len(page) > 0 {
			m.event, _ = strconv.ParseInt(text(page[0], "id"), 10, 64)
		}
		w.watched = append(w.watched, m)
	}
	return w
}

// events are a machine's, newest first.
func (w *waiter) events(ctx context.Context, m *watched, pairs ...string) ([]*yaml.Node, error) {
	q := map[string][]string{"id": {m.id}, "level": {"INFO"}}
	for i := 0; i+1 < len(pairs); i += 2 {
		q[pairs[i]] = []string{pairs[i+1]}
	}
	ans, err := w.client.Do(ctx, api.Lookup("events.query"), client.Request{Query: q})
	if err != nil {
		return nil, err
	}
	n, err := parse(ans.Body)
	if err != nil {
		return nil, err
	}
	page := child(n, "events")
	if page == nil {
		return nil, errors.New("no events")
	}
	return page.Content, nil
}

// run waits. The answer of the operation says which machines; one machine's last state is the answer in the end.
func (w *waiter) run(ctx context.Context, ans client.Answer) (client.Answer, error) {
	n, err := parse(ans.Body)
	if err != nil {
		n = nil
	}
	w.pick(n)
	one := n != nil && n.Kind == yaml.MappingNode || w.asked != ""
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	pending := slices.Clone(w.watched)
	var errs []error
	lost := 0
	for len(pending) > 0 {
		var still []*watched
		for _, m := range pending {
			last, done, err := w.look(ctx, m)
			var answered *client.Error
			switch {
			case err == nil && !done:
				still = append(still, m)
			case err == nil && one && last.Body != nil:
				ans = last
			case err == nil:
			case ctx.Err() != nil:
				still = append(still, m)
			case errors.As(err, &answered) && answered.Status < 500:
				errs = append(errs, w.explain(api.Lookup("machine.read"), w.target, err))
			case answered != nil || isNetwork(err):
				if lost++; lost > 20 {
					return ans, w.explain(api.Lookup("machine.read"), w.target, err)
				}
				w.say(m, "no answer, trying again: "+serverText(err))
				still = append(still, m)
				continue
			default:
				errs = append(errs, err)
			}
			lost = 0
		}
		pending = still
		if len(pending) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			for _, m := range pending {
				errs = append(errs, fmt.Errorf("%s is still %q after %s; it goes on without this command", m.label(), m.state, w.timeout))
			}
			if errors.Is(ctx.Err(), context.Canceled) {
				return ans, errors.New("interrupted; the server goes on with what it was asked")
			}
			return ans, errors.Join(errs...)
		case <-time.After(w.every):
		}
	}
	return ans, errors.Join(errs...)
}

// pick finds the machines of an answer: one, several, or system_ids. It tells where they stand now.
func (w *waiter) pick(n *yaml.Node) {
	for _, item := range all(n, nil) {
		id := item.Value
		if item.Kind != yaml.ScalarNode {
			id = text(item, "system_id")
		}
		if id == "" {
			continue
		}
		i := slices.IndexFunc(w.watched, func(m *watched) bool { return m.id == id })
		if i < 0 {
			i = len(w.watched)
			w.watched = append(w.watched, &watched{id: id})
		}
		if m := w.watched[i]; item.Kind == yaml.MappingNode && text(item, "status_name") != "" {
			w.see(m, item)
		}
	}
}

// see takes what a machine is now, and tells what is new.
func (w *waiter) see(m *watched, n *yaml.Node) {
	m.node, m.name = n, clean(text(n, "hostname"))
	if state := w.state(n); state != m.state {
		m.state = state
		w.say(m, w.verb()+state)
	}
}

// verb goes before a state.
func (w *waiter) verb() string {
	if w.goal.power != "" {
		return "power is "
	}
	return "is "
}

// state is what the command waits for a change of.
func (w *waiter) state(n *yaml.Node) string {
	if w.goal.power != "" {
		return clean(text(n, "power_state"))
	}
	return clean(text(n, "status_name"))
}

// look reads a machine and tells what is new.
func (w *waiter) look(ctx context.Context, m *watched) (client.Answer, bool, error) {
	ans, err := w.client.Do(ctx, api.Lookup("machine.read"), client.Request{Path: map[string]string{"system_id": m.id}})
	if client.IsStatus(err, 404) && w.goal.gone {
		w.say(m, "is gone")
		return client.Answer{}, true, nil
	}
	if err != nil {
		return client.Answer{}, false, err
	}
	n, err := parse(ans.Body)
	if err != nil {
		return client.Answer{}, false, err
	}
	w.tellEvents(ctx, m, w.state(n))
	w.see(m, n)
	done, err := w.goal.reached(n)
	if err != nil {
		return ans, false, w.failure(m, err)
	}
	return ans, done, nil
}

// tellEvents tells what happened since the last look, but for events that only repeat the status.
func (w *waiter) tellEvents(ctx context.Context, m *watched, state string) {
	if m.mute {
		return
	}
	list, err := w.events(ctx, m, "after", strconv.FormatInt(m.event, 10), "limit", "100")
	if err != nil {
		var answered *client.Error
		m.mute = errors.As(err, &answered)
		return
	}
	slices.Reverse(list)
	for _, e := range list {
		id, err := strconv.ParseInt(text(e, "id"), 10, 64)
		if err != nil || id <= m.event {
			continue
		}
		m.event = id
		line := clean(text(e, "type"))
		if d := clean(text(e, "description")); d != "" {
			line += ": " + d
		}
		if level := text(e, "level"); level == "ERROR" || level == "CRITICAL" || level == "WARNING" {
			m.troubles = append(m.troubles, line)
			line = level + " " + line
		}
		if line != state {
			w.say(m, "  "+line)
		}
	}
}

// failure says why a machine did not get there, as far as the server tells.
func (w *waiter) failure(m *watched, err error) error {
	line := fmt.Sprintf("%s did not get there: %v", m.label(), err)
	reasons := []string{clean(text(m.node, "error_description")), clean(text(m.node, "status_message"))}
	if n := len(m.troubles); n > 0 {
		reasons = append(reasons, m.troubles[max(0, n-3):]...)
	}
	seen := map[string]bool{"": true}
	for _, r := range reasons {
		if !seen[r] {
			seen[r] = true
			line += "\n  " + r
		}
	}
	return fmt.Errorf("%s\n  `ingot events query id=%s` tells the rest", line, m.id)
}

func (m *watched) label() string {
	if m.name == "" {
		return m.id
	}
	return m.id + " (" + m.name + ")"
}

func (w *waiter) say(m *watched, what string) {
	fmt.Fprintf(w.errOut, "%s  %s  %s\n", w.now().Format("15:04:05"), m.label(), what)
}
