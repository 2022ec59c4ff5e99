package provisioner

import (
	"github.com/ingot-metal/ingot/storage"
)

// AddressBook is what the API shows beside addresses: their users, subnets and interfaces.
type AddressBook struct {
	Cat        *storage.Catalogue
	Users      map[int64]storage.User
	Interfaces map[int64]BookInterface // by interface id
}

// BookInterface is an interface with the node it belongs to.
type BookInterface struct {
	*storage.InterfaceBundle
	SystemID string
}

// loadAddressBook reads what belongs to addresses, in a constant number of queries.
func loadAddressBook(tx *storage.Tx, addrs []storage.IPAddress) (*AddressBook, error) {
	b := &AddressBook{Interfaces: map[int64]BookInterface{}}
	var err error
	if b.Cat, err = tx.LoadCatalogue(); err != nil {
		return nil, err
	}
	var users, nics []int64
	for _, a := range addrs {
		if a.UserID != nil {
			users = append(users, *a.UserID)
		}
		if a.InterfaceID != nil {
			nics = append(nics, *a.InterfaceID)
		}
	}
	if b.Users, err = tx.UsersByID(users); err != nil {
		return nil, err
	}
	if len(nics) == 0 {
		return b, nil
	}
	nodes, err := tx.InterfaceNodes(nics)
	if err != nil {
		return nil, err
	}
	machines, err := tx.LoadMachines(storage.NodeFilter{IDs: nodes})
	if err != nil {
		return nil, err
	}
	for _, m := range machines {
		for _, i := range m.Interfaces {
			b.Interfaces[i.ID] = BookInterface{i, m.Node.SystemID}
		}
	}
	return b, nil
}
