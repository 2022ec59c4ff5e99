package view

import (
	"net/netip"
	"time"
)

// StepKind names a step of a network boot.
type StepKind string

// The steps, in the order in which a machine takes them.
const (
	StepDHCPOffer  StepKind = "dhcp-offer"  // an offer with a boot loader
	StepDHCPAck    StepKind = "dhcp-ack"    // the address is the machine's
	StepLoader     StepKind = "loader"      // a boot loader file was served
	StepBootConfig StepKind = "boot-config" // a boot configuration was served: here the boot method is known
	StepKernel     StepKind = "kernel"
	StepInitrd     StepKind = "initrd"
	StepRoot       StepKind = "root" // the squashfs of the full environment
	StepImage      StepKind = "image"
	StepAgent      StepKind = "agent"
	StepRefused    StepKind = "refused" // the machine asked and could not be served: Detail says why
)

// Step is one step of a machine's boot, as an edge saw it. MAC or SystemID may be empty when only the address is known: whoever
// records steps resolves the address by the leases.
type Step struct {
	Time     time.Time
	Kind     StepKind
	MAC      string
	SystemID string
	Client   netip.Addr
	// Rack is the address of ours that the machine talked to.
	Rack     netip.Addr
	Protocol string // dhcp, tftp or http
	Path     string // file or configuration asked for
	// Method is the boot method that the configuration path means (pxe, uefi, ipxe, open-firmware); only StepBootConfig has it.
	Method  string
	Purpose string
	Arch    string
	VLANID  int64
	// Relayed says that the request came through a DHCP relay.
	Relayed bool
	Detail  string
}

// OnStep receives steps. It must not block and may be called from many goroutines.
type OnStep func(Step)
