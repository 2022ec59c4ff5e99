package provisioner

import (
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// deviceKeys are the keys of the devices constraint.
var deviceKeys = map[string]func(d *storage.PartDevice) *string{
	"vendor_id":            func(d *storage.PartDevice) *string { return &d.VendorID },
	"product_id":           func(d *storage.PartDevice) *string { return &d.ProductID },
	"vendor_name":          func(d *storage.PartDevice) *string { return &d.VendorName },
	"product_name":         func(d *storage.PartDevice) *string { return &d.ProductName },
	"commissioning_driver": func(d *storage.PartDevice) *string { return &d.Driver },
}

// devices wants one PCI or USB device that has all the values; case does not matter.
func (p *constraintParser) devices(name string, values []string) error {
	text := values[len(values)-1]
	pairs, ok := parsePairs(text)
	if !ok {
		p.fields.add(name, `Malformed devices constraint, "`+text+`".`)
		return nil
	}
	var narrow storage.PartDevice
	for _, kv := range pairs {
		field := deviceKeys[kv[0]]
		if field == nil {
			p.fields.add(name, "Unknown devices constraint: '"+kv[0])
			return nil
		}
		*field(&narrow) = kv[1]
	}
	has := func(d storage.PartDevice) bool {
		for _, kv := range pairs {
			if !strings.EqualFold(*deviceKeys[kv[0]](&d), kv[1]) {
				return false
			}
		}
		return true
	}
	k := p.add(name, []string{text}, func(f *storage.NodeFilter) { f.Devices = append(f.Devices, storage.DeviceCondition(narrow)) },
		func(c *storage.CandidateFacts) string {
			if !slices.ContainsFunc(c.Devices, has) {
				return "it has no device with " + text
			}
			return ""
		})
	k.parts = storage.DeviceParts
	return nil
}
