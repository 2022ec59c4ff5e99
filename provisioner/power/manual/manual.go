// Package manual is the driver of machines that people switch by hand: it acts on nothing and knows no state.
package manual

import (
	"context"

	"github.com/ingot-metal/ingot/provisioner/power"
)

// Driver is the manual driver.
type Driver struct{}

// Describe implements power.Driver.
func (Driver) Describe() power.Type {
	return power.Type{Name: "manual", Description: "Manual", Fields: []power.Field{}}
}

// Query implements power.Driver: nobody can tell.
func (Driver) Query(context.Context, power.Params) (power.State, error) { return power.Unknown, nil }

// On implements power.Driver: somebody presses the button.
func (Driver) On(context.Context, power.Params) error { return nil }

// Off implements power.Driver.
func (Driver) Off(context.Context, power.Params) error { return nil }

// Cycle implements power.Driver.
func (Driver) Cycle(context.Context, power.Params) error { return nil }
