package storage

// The buses of node devices, as the API numbers them.
const (
	BusPCIE = 1
	BusUSB  = 2
)

const nodeDeviceColumns = `id, node_id, bus, hardware_type, vendor_id, product_id, vendor_name, product_name, driver, bus_number, device_number, pci_address,
	numa_node, interface_id, block_device_id, vpd, created, updated`

func scanNodeDevice(r scanner) (d HardwareDevice, err error) {
	err = r.Scan(&d.ID, &d.NodeID, &d.Bus, &d.HardwareType, &d.VendorID, &d.ProductID, &d.VendorName, &d.ProductName, &d.Driver, &d.BusNumber,
		&d.DeviceNumber, &d.PCIAddress, &d.NUMANode, &d.InterfaceID, &d.BlockDeviceID, scanJSON(&d.VPD), scanTime(&d.Created), scanTime(&d.Updated))
	return d, err
}

// SaveNodeDevice inserts a device, or writes all of one that has an ID.
func (tx *Tx) SaveNodeDevice(d *HardwareDevice) (err error) {
	d.Updated = tx.Now()
	args := []any{d.NodeID, d.Bus, d.HardwareType, d.VendorID, d.ProductID, d.VendorName, d.ProductName, d.Driver, d.BusNumber, d.DeviceNumber, d.PCIAddress,
		d.NUMANode, d.InterfaceID, d.BlockDeviceID, jsonArg(d.VPD, "{}"), d.Updated}
	if d.ID != 0 {
		return tx.one(`update node_devices set node_id = $1, bus = $2, hardware_type = $3, vendor_id = $4, product_id = $5, vendor_name = $6, product_name = $7,
			driver = $8, bus_number = $9, device_number = $10, pci_address = $11, numa_node = $12, interface_id = $13, block_device_id = $14, vpd = $15,
			updated = $16 where id = $17`, append(args, d.ID)...)
	}
	d.Created = tx.Now()
	d.ID, err = tx.insert(`insert into node_devices (node_id, bus, hardware_type, vendor_id, product_id, vendor_name, product_name, driver, bus_number,
		device_number, pci_address, numa_node, interface_id, block_device_id, vpd, updated, created)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) returning id`, append(args, d.Created)...)
	return err
}

// NodeDevices returns the devices of nodes, by node and id.
func (tx *Tx) NodeDevices(nodeIDs []int64) ([]HardwareDevice, error) {
	return listByIDs(tx, scanNodeDevice, notNil(nodeIDs), `select `+nodeDeviceColumns+` from node_devices`, "node_id", "order by node_id, id")
}

// DeleteNodeDevices removes devices.
func (tx *Tx) DeleteNodeDevices(ids []int64) error {
	w := tx.where().in("id", notNil(ids))
	_, err := tx.Exec(`delete from node_devices`+w.sql(), w.args...)
	return err
}
