// Package drivers lists the power drivers of this build. It is apart from package power so that a driver can import that one.
package drivers

import (
	"github.com/ingot-metal/ingot/provisioner/power"
	"github.com/ingot-metal/ingot/provisioner/power/ipmi"
	"github.com/ingot-metal/ingot/provisioner/power/manual"
	"github.com/ingot-metal/ingot/provisioner/power/webhook"
)

// All returns every driver by its name.
func All() map[string]power.Driver {
	out := map[string]power.Driver{}
	for _, d := range []power.Driver{ipmi.Driver{}, manual.Driver{}, webhook.Driver{}} {
		out[d.Describe().Name] = d
	}
	return out
}
