// Package power owns the driver interface by which a machine's BMC is driven, and its retry policy. Each driver is a package of
// its own below. It knows nothing of machines, jobs or storage: a driver gets parameters and acts.
package power

import "context"

// State is what a BMC says of its machine.
type State string

// The states of the API's power_state.
const (
	On      State = "on"
	Off     State = "off"
	Unknown State = "unknown"
)

// Params are the power parameters of one machine, as the API stores them: power_address, power_user, power_pass, ...
type Params map[string]string

// Driver drives one kind of BMC. Implementations hold no state between calls and are safe for concurrent use. Every method
// respects ctx and returns an *Error when the BMC is the cause. No error text contains a secret.
type Driver interface {
	// Describe returns the driver's schema, as MAAS's power types list it.
	Describe() Type
	// Query asks the BMC for the power state.
	Query(ctx context.Context, p Params) (State, error)
	// On powers the machine on, booting once from the network; a machine that is on is power-cycled, as MAAS does.
	On(ctx context.Context, p Params) error
	// Off powers the machine off. Params["power_off_mode"] "soft" asks the operating system first.
	Off(ctx context.Context, p Params) error
	// Cycle powers the machine off and on, booting once from the network.
	Cycle(ctx context.Context, p Params) error
}

// Type describes a driver and its parameters.
type Type struct {
	Name        string  `json:"name"`
	Description string  `json:"description"`
	Chassis     bool    `json:"chassis"`
	CanProbe    bool    `json:"can_probe"`
	Queryable   bool    `json:"queryable"`
	Fields      []Field `json:"fields"`
}

// Field is one power parameter.
type Field struct {
	Name     string      `json:"name"`
	Label    string      `json:"label"`
	Required bool        `json:"required"`
	Kind     string      `json:"field_type"` // string, mac_address, choice, multiple_choice, password
	Choices  [][2]string `json:"choices"`
	Default  string      `json:"default"`
	Scope    string      `json:"scope"` // bmc, node
	Secret   bool        `json:"secret"`
}
