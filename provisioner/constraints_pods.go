package provisioner

import (
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// pods reads the constraints about hosts of virtual machines, which clients made for earlier versions still send. No machine is on
// such a host: to be on none holds for all.
func (p *constraintParser) pods(name string, values []string) error {
	if strings.HasPrefix(name, "not_") || strings.Join(values, "") == "" {
		return nil
	}
	p.add(name, values, func(f *storage.NodeFilter) { f.SystemIDs = []string{} },
		func(*storage.CandidateFacts) string { return "it is on no host of virtual machines" })
	return nil
}
