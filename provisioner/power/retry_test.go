package power_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/provisioner/power"
	"github.com/ingot-metal/ingot/provisioner/power/drivers"
)

// script answers each call with the next of its list, the last one for ever.
type script struct {
	acts, states []any // error, power.State or nil
	acted        int
	asked        int
	manual       bool
}

func (s *script) Describe() power.Type {
	return power.Type{Name: "script", Queryable: !s.manual, Fields: []power.Field{
		{Name: "power_address", Required: true}, {Name: "power_pass", Secret: true}, {Name: "mode", Default: "hard"}}}
}

func pick(list []any, i int) any {
	if len(list) == 0 {
		return nil
	}
	return list[min(i, len(list)-1)]
}

func (s *script) act(context.Context, power.Params) error {
	s.acted++
	err, _ := pick(s.acts, s.acted-1).(error)
	return err
}
func (s *script) On(ctx context.Context, p power.Params) error    { return s.act(ctx, p) }
func (s *script) Off(ctx context.Context, p power.Params) error   { return s.act(ctx, p) }
func (s *script) Cycle(ctx context.Context, p power.Params) error { return s.act(ctx, p) }
func (s *script) Query(context.Context, power.Params) (power.State, error) {
	s.asked++
	switch v := pick(s.states, s.asked-1).(type) {
	case error:
		return power.Unknown, v
	case power.State:
		return v, nil
	}
	return power.Unknown, nil
}

func TestDo(t *testing.T) {
	conn := &power.Error{Kind: power.ErrConn, Text: "no answer"}
	auth := &power.Error{Kind: power.ErrAuth, Text: "no"}
	loose := errors.New("dial hunter2@bmc: refused")
	delays := []time.Duration{time.Second, 2 * time.Second}
	for _, tc := range []struct {
		name   string
		s      script
		a      power.Action
		params power.Params
		want   power.State
		err    string
		acted  int
		waited time.Duration // -1: any
	}{
		{"at once", script{states: []any{power.On}}, power.ActionOn, nil, power.On, "", 1, 0},
		{"after a while", script{states: []any{power.Off, power.Off, power.On}}, power.ActionOn, nil, power.On, "", 1, 750 * time.Millisecond},
		{"second try", script{acts: []any{conn, nil}, states: []any{power.Off}}, power.ActionOff, nil, power.Off, "", 2, time.Second},
		{"fatal", script{acts: []any{auth}}, power.ActionOn, nil, power.Unknown, "Could not authenticate to node's BMC: no", 1, 0},
		{"fatal while waiting", script{states: []any{auth}}, power.ActionOn, nil, power.Unknown, "Could not authenticate to node's BMC: no", 1, 0},
		{"never", script{states: []any{power.Off}}, power.ActionCycle, nil, power.Off, "Failed to complete power action: BMC never transitioned from off to on", 2, 3 * time.Second},
		{"never off", script{states: []any{power.On}}, power.ActionOff, nil, power.On, "Failed to complete power action: BMC never transitioned from on to off", 2, 3 * time.Second},
		{"error stays", script{acts: []any{conn}}, power.ActionOn, nil, power.Unknown, "Could not contact node's BMC: no answer", 2, 3 * time.Second},
		{"secret", script{acts: []any{loose}}, power.ActionOn, power.Params{"power_address": "bmc", "power_pass": "hunter2"}, power.Unknown, "Failed talking to node's BMC: dial ********@bmc: refused", 2, -1},
		{"required", script{}, power.ActionOn, power.Params{}, power.Unknown, "Missing or invalid power setting: power_address is required by the script driver", 0, 0},
		{"nobody can tell", script{manual: true}, power.ActionOn, nil, power.Unknown, "", 1, 0},
		{"query", script{states: []any{conn, conn, power.Off}}, power.ActionQuery, nil, power.Off, "", 0, 3 * time.Second},
		{"query in vain", script{states: []any{conn}}, power.ActionQuery, nil, power.Unknown, "Could not contact node's BMC: no answer", 0, 3 * time.Second},
		{"query refused", script{states: []any{auth}}, power.ActionQuery, nil, power.Unknown, "Could not authenticate to node's BMC: no", 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var waited time.Duration
			if tc.params == nil {
				tc.params = power.Params{"power_address": "x"}
			}
			st, err := power.Do(t.Context(), &tc.s, tc.a, tc.params, power.Options{Delays: delays, Sleep: func(_ context.Context, d time.Duration) error {
				waited += d
				return nil
			}})
			text := ""
			if err != nil {
				text = err.Error()
			}
			if st != tc.want || text != tc.err || tc.s.acted != tc.acted || (tc.waited >= 0 && waited != tc.waited) {
				t.Errorf("%s, %q, %d actions, %s; want %s, %q, %d, %s", st, text, tc.s.acted, waited, tc.want, tc.err, tc.acted, tc.waited)
			}
		})
	}
}

// reporter is on for a moment after each action, and off by itself whenever somebody asks.
type reporter struct{ script }

func (r *reporter) Act(ctx context.Context, a power.Action, _ power.Params) (power.State, error) {
	return power.On, r.act(ctx, nil)
}

// A machine that has done what it was switched on for and is off again must not be switched on again.
func TestDoTakesTheStateOfTheAction(t *testing.T) {
	r := &reporter{script{states: []any{power.Off}}}
	st, err := power.Do(t.Context(), r, power.ActionCycle, power.Params{"power_address": "x"}, power.Options{})
	if st != power.On || err != nil || r.acted != 1 || r.asked != 0 {
		t.Errorf("%s, %v after %d actions and %d questions", st, err, r.acted, r.asked)
	}
}

func TestDoEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := power.Do(ctx, &script{states: []any{power.Off}}, power.ActionOn, power.Params{"power_address": "x"}, power.Options{})
	if err == nil || time.Since(begin) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(begin))
	}
}

func TestWithDefaults(t *testing.T) {
	d := drivers.All()
	p := power.WithDefaults(d["ipmi"].Describe(), power.Params{"cipher_suite_id": "", "privilege_level": "", "power_off_mode": "soft"})
	// An empty cipher suite is one of the choices; an empty privilege level is not.
	if p["cipher_suite_id"] != "" || p["privilege_level"] != "OPERATOR" || p["power_off_mode"] != "soft" || p["power_driver"] != "LAN_2_0" {
		t.Errorf("%v", p)
	}
}

func TestDriversDescribeThemselves(t *testing.T) {
	for name, d := range drivers.All() {
		ty := d.Describe()
		if ty.Name != name || ty.Description == "" || ty.Fields == nil {
			t.Errorf("%s: %+v", name, ty)
		}
		var seen []string
		for _, f := range ty.Fields {
			if slices.Contains(seen, f.Name) || f.Label == "" || (f.Scope != "bmc" && f.Scope != "node") || f.Choices == nil {
				t.Errorf("%s: field %+v", name, f)
			}
			if f.Secret != (strings.Contains(f.Name, "pass") || f.Name == "k_g" || strings.Contains(f.Name, "token")) {
				t.Errorf("%s: is %s a secret?", name, f.Name)
			}
			seen = append(seen, f.Name)
		}
	}
}
