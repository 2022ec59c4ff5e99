package server_test

// roleTable says who may call what: one row an operation, with what becomes of it when nobody in particular calls it, a plain user, an
// administrator, and a machine with its own credentials. See roleRow for the words. Where it is
// stricter than the document's x-permission: a machine is marked broken by its owner alone, a Ready machine's disks are formatted by
// administrators, controllers are managed by those who may edit controllers.
const roleTable = `
# DeviceHandler
device.read                                        401  yes  yes  403
device.update                                      401  403  yes  403
device.delete                                      401  403  yes  403
device.details                                     401  yes  yes  403
device.power_parameters                            401  403  yes  403
device.restore_default_configuration               401  403  yes  403
device.restore_networking_configuration            401  403  yes  403
device.set_owner_data                              401  403  yes  403
device.set_workload_annotations                    401  403  yes  403
# DevicesHandler
devices.list                                       400  yes  yes  403
devices.create                                     401  yes  yes  403
devices.is_action_in_progress                      yes  400  400  403
devices.is_registered                              yes  yes  yes  403
devices.set_zone                                   401  yes  yes  403
# MachineHandler
machine.read                                       401  yes  yes  403
machine.update                                     401  403  yes  403
machine.delete                                     401  403  yes  403
machine.abort                                      401  yes  yes  403
machine.clear_default_gateways                     401  403  yes  403
machine.commission                                 401  403  yes  403
machine.deploy                                     401  yes  yes  403
machine.details                                    401  yes  yes  403
machine.exit_rescue_mode                           401  403  yes  403
machine.get_curtin_config                          401  yes  yes  403
machine.get_token                                  401  403  yes  403
machine.lock                                       401  yes  yes  403
machine.mark_broken                                401  403  403  403
machine.mark_fixed                                 401  403  yes  403
machine.mount_special                              401  yes  yes  403
machine.override_failed_testing                    401  403  yes  403
machine.power_off                                  401  yes  yes  403
machine.power_on                                   401  yes  yes  403
machine.power_parameters                           401  403  yes  403
machine.query_power_state                          401  yes  yes  403
machine.release                                    401  yes  yes  403
machine.rescue_mode                                401  403  yes  403
machine.restore_default_configuration              401  403  yes  403
machine.restore_networking_configuration           401  403  yes  403
machine.restore_storage_configuration              401  403  yes  403
machine.set_owner_data                             401  yes  yes  403
machine.set_storage_layout                         401  403  yes  403
machine.set_workload_annotations                   401  yes  yes  403
machine.test                                       401  403  yes  403
machine.unlock                                     401  yes  yes  403
machine.unmount_special                            401  yes  yes  403
# MachinesHandler
machines.list                                      400  yes  yes  403
machines.create                                    yes  yes  yes  403
machines.accept                                    401  403  yes  403
machines.accept_all                                400  yes  yes  403
machines.add_chassis                               400  403  yes  403
machines.allocate                                  400  yes  yes  403
machines.clone                                     400  yes  yes  403
machines.is_action_in_progress                     yes  400  400  403
machines.is_registered                             yes  yes  yes  403
machines.list_allocated                            400  yes  yes  403
machines.power_parameters                          400  403  yes  403
machines.release                                   400  yes  yes  403
machines.set_zone                                  400  yes  yes  403
# NodeDeviceHandler
node_device.read                                   401  yes  yes  403
node_device.delete                                 401  403  yes  403
# NodeDevicesHandler
node_devices.list                                  401  yes  yes  403
# NodeHandler
node.read                                          401  yes  yes  403
node.delete                                        401  403  yes  403
node.details                                       401  yes  yes  403
node.power_parameters                              401  403  yes  403
# NodeResultsHandler
node_results.list                                  401  yes  yes  403
# NodeScriptResultHandler
node_script_result.read                            401  yes  yes  403
node_script_result.update                          401  403  yes  403
node_script_result.delete                          401  403  yes  403
node_script_result.download                        401  yes  yes  403
# NodeScriptResultsHandler
node_script_results.list                           401  yes  yes  403
# NodesHandler
nodes.list                                         400  yes  yes  403
nodes.is_action_in_progress                        yes  400  400  403
nodes.is_registered                                yes  yes  yes  403
nodes.set_zone                                     401  yes  yes  403
# RackControllerHandler
rack_controller.read                               401  yes  yes  403
rack_controller.update                             401  403  yes  403
rack_controller.delete                             401  403  yes  403
rack_controller.abort                              401  403  yes  403
rack_controller.details                            401  yes  yes  403
rack_controller.import_boot_images                 401  403  yes  403
rack_controller.list_boot_images                   401  403  yes  403
rack_controller.override_failed_testing            401  403  yes  403
rack_controller.power_off                          401  403  yes  403
rack_controller.power_on                           401  403  yes  403
rack_controller.power_parameters                   401  403  yes  403
rack_controller.query_power_state                  401  yes  yes  403
rack_controller.test                               401  403  yes  403
# RackControllersHandler
rack_controllers.list                              400  yes  yes  403
rack_controllers.describe_power_types              400  403  yes  403
rack_controllers.import_boot_images                401  403  yes  403
rack_controllers.is_action_in_progress             yes  400  400  403
rack_controllers.is_registered                     yes  yes  yes  403
rack_controllers.power_parameters                  400  403  yes  403
rack_controllers.set_zone                          401  yes  yes  403
# RegionControllerHandler
region_controller.read                             401  yes  yes  403
region_controller.update                           401  403  yes  403
region_controller.delete                           401  403  yes  403
region_controller.details                          401  yes  yes  403
region_controller.power_parameters                 401  403  yes  403
# RegionControllersHandler
region_controllers.list                            400  yes  yes  403
region_controllers.is_action_in_progress           yes  400  400  403
region_controllers.is_registered                   yes  yes  yes  403
region_controllers.set_zone                        401  yes  yes  403
# DHCPSnippetHandler
dhcp_snippet.read                                  401  yes  yes  403
dhcp_snippet.update                                401  403  yes  403
dhcp_snippet.delete                                401  403  yes  403
dhcp_snippet.revert                                401  403  yes  403
# DHCPSnippetsHandler
dhcp_snippets.list                                 401  yes  yes  403
dhcp_snippets.create                               401  403  yes  403
# DNSResourceHandler
dns_resource.read                                  401  yes  yes  403
dns_resource.update                                401  403  yes  403
dns_resource.delete                                401  403  yes  403
# DNSResourceRecordHandler
dns_resource_record.read                           401  yes  yes  403
dns_resource_record.update                         401  403  yes  403
dns_resource_record.delete                         401  403  yes  403
# DNSResourceRecordsHandler
dns_resource_records.list                          401  yes  yes  403
dns_resource_records.create                        401  403  yes  403
# DNSResourcesHandler
dns_resources.list                                 401  yes  yes  403
dns_resources.create                               401  403  yes  403
# DiscoveriesHandler
discoveries.list                                   401  yes  yes  403
discoveries.by_unknown_ip                          401  yes  yes  403
discoveries.by_unknown_ip_and_mac                  401  yes  yes  403
discoveries.by_unknown_mac                         401  yes  yes  403
discoveries.clear                                  401  403  yes  403
discoveries.clear_by_mac_and_ip                    401  403  yes  403
discoveries.scan                                   401  yes  yes  403
# DiscoveryHandler
discovery.read                                     401  yes  yes  403
# DomainHandler
domain.read                                        401  yes  yes  403
domain.update                                      401  403  yes  403
domain.delete                                      401  403  yes  403
domain.set_default                                 401  403  yes  403
# DomainsHandler
domains.list                                       401  yes  yes  403
domains.create                                     401  403  yes  403
domains.set_serial                                 401  403  yes  403
# FabricHandler
fabric.read                                        401  yes  yes  403
fabric.update                                      401  403  yes  403
fabric.delete                                      401  403  yes  403
# FabricsHandler
fabrics.list                                       401  yes  yes  403
fabrics.create                                     401  403  yes  403
# IPAddressesHandler
ip_addresses.list                                  401  yes  yes  403
ip_addresses.release                               401  yes  yes  403
ip_addresses.reserve                               401  yes  yes  403
# IPRangeHandler
ip_range.read                                      401  yes  yes  403
ip_range.update                                    401  403  yes  403
ip_range.delete                                    401  403  yes  403
# IPRangesHandler
ip_ranges.list                                     401  yes  yes  403
ip_ranges.create                                   401  yes  yes  403
# InterfaceHandler
interface.read                                     401  yes  yes  403
interface.update                                   401  403  yes  403
interface.delete                                   401  403  yes  403
interface.add_tag                                  401  403  yes  403
interface.disconnect                               401  403  yes  403
interface.link_subnet                              401  403  yes  403
interface.remove_tag                               401  403  yes  403
interface.set_default_gateway                      401  403  yes  403
interface.unlink_subnet                            401  403  yes  403
# InterfacesHandler
interfaces.list                                    401  yes  yes  403
interfaces.create_bond                             401  403  yes  403
interfaces.create_bridge                           401  403  yes  403
interfaces.create_physical                         401  403  yes  403
interfaces.create_vlan                             401  403  yes  403
# NetworkHandler
network.read                                       401  yes  yes  403
network.update                                     401  410  410  403
network.delete                                     401  410  410  403
network.connect_macs                               401  410  410  403
network.disconnect_macs                            401  410  410  403
network.list_connected_macs                        401  yes  yes  403
# NetworksHandler
networks.list                                      401  yes  yes  403
networks.create                                    401  410  410  403
# ReservedIpHandler
reserved_ip.read                                   401  yes  yes  403
reserved_ip.update                                 401  403  yes  403
reserved_ip.delete                                 401  403  yes  403
# ReservedIpsHandler
reserved_ips.list                                  401  yes  yes  403
reserved_ips.create                                401  403  yes  403
# SpaceHandler
space.read                                         401  yes  yes  403
space.update                                       401  403  yes  403
space.delete                                       401  403  yes  403
# SpacesHandler
spaces.list                                        401  yes  yes  403
spaces.create                                      401  403  yes  403
# StaticRouteHandler
static_route.read                                  401  yes  yes  403
static_route.update                                401  403  yes  403
static_route.delete                                401  403  yes  403
# StaticRoutesHandler
static_routes.list                                 401  yes  yes  403
static_routes.create                               401  403  yes  403
# SubnetHandler
subnet.read                                        401  yes  yes  403
subnet.update                                      401  403  yes  403
subnet.delete                                      401  403  yes  403
subnet.ip_addresses                                401  yes  yes  403
subnet.reserved_ip_ranges                          401  yes  yes  403
subnet.statistics                                  401  yes  yes  403
subnet.unreserved_ip_ranges                        401  yes  yes  403
# SubnetsHandler
subnets.list                                       401  yes  yes  403
subnets.create                                     401  403  yes  403
# VlanHandler
vlan.read                                          401  yes  yes  403
vlan.update                                        401  403  yes  403
vlan.delete                                        401  403  yes  403
# VlansHandler
vlans.list                                         401  yes  yes  403
vlans.create                                       401  403  yes  403
# BcacheCacheSetHandler
bcache_cache_set.read                              401  yes  yes  403
bcache_cache_set.update                            401  403  yes  403
bcache_cache_set.delete                            401  403  yes  403
# BcacheCacheSetsHandler
bcache_cache_sets.list                             401  yes  yes  403
bcache_cache_sets.create                           401  403  yes  403
# BcacheHandler
bcache.read                                        401  yes  yes  403
bcache.update                                      401  403  yes  403
bcache.delete                                      401  403  yes  403
# BcachesHandler
bcaches.list                                       401  yes  yes  403
bcaches.create                                     401  403  yes  403
# BlockDeviceHandler
block_device.read                                  401  yes  yes  403
block_device.update                                401  403  yes  403
block_device.delete                                401  403  yes  403
block_device.add_tag                               401  403  yes  403
block_device.format                                401  403  yes  403
block_device.mount                                 401  403  yes  403
block_device.remove_tag                            401  403  yes  403
block_device.set_boot_disk                         401  403  yes  403
block_device.unformat                              401  403  yes  403
block_device.unmount                               401  403  yes  403
# BlockDevicesHandler
block_devices.list                                 401  yes  yes  403
block_devices.create                               401  403  yes  403
# PartitionHandler
partition.read                                     401  yes  yes  403
partition.delete                                   401  403  yes  403
partition.add_tag                                  401  403  yes  403
partition.format                                   401  403  yes  403
partition.mount                                    401  403  yes  403
partition.remove_tag                               401  403  yes  403
partition.unformat                                 401  403  yes  403
partition.unmount                                  401  403  yes  403
# PartitionsHandler
partitions.list                                    401  yes  yes  403
partitions.create                                  401  403  yes  403
# RaidHandler
raid.read                                          401  yes  yes  403
raid.update                                        401  403  yes  403
raid.delete                                        401  403  yes  403
# RaidsHandler
raids.list                                         401  yes  yes  403
raids.create                                       401  403  yes  403
# VmfsDatastoreHandler
vmfs_datastore.read                                401  yes  yes  403
vmfs_datastore.update                              401  403  yes  403
vmfs_datastore.delete                              401  403  yes  403
# VmfsDatastoresHandler
vmfs_datastores.list                               401  yes  yes  403
vmfs_datastores.create                             401  403  yes  403
# VolumeGroupHandler
volume_group.read                                  401  yes  yes  403
volume_group.update                                401  403  yes  403
volume_group.delete                                401  403  yes  403
volume_group.create_logical_volume                 401  403  yes  403
volume_group.delete_logical_volume                 401  403  yes  403
# VolumeGroupsHandler
volume_groups.list                                 401  yes  yes  403
volume_groups.create                               401  403  yes  403
# BootResourceFileUploadHandler
boot_resource_file_upload.upload                   401  403  yes  403
# BootResourceHandler
boot_resource.read                                 401  yes  yes  403
boot_resource.delete                               401  403  yes  403
# BootResourcesHandler
boot_resources.list                                401  yes  yes  403
boot_resources.create                              401  403  yes  403
boot_resources.import                              401  403  yes  403
boot_resources.is_importing                        401  yes  yes  403
boot_resources.stop_import                         401  403  yes  403
# BootSourceHandler
boot_source.read                                   401  yes  yes  403
boot_source.update                                 401  403  yes  403
boot_source.delete                                 401  403  yes  403
# BootSourceSelectionHandler
boot_source_selection.read                         401  yes  yes  403
boot_source_selection.update                       401  403  yes  403
boot_source_selection.delete                       401  403  yes  403
# BootSourceSelectionsHandler
boot_source_selections.list                        401  yes  yes  403
boot_source_selections.create                      401  403  yes  403
# BootSourcesHandler
boot_sources.list                                  401  yes  yes  403
boot_sources.create                                401  403  yes  403
# ImageSyncProgressHandler
image_sync_progress.read                           401  403  403  403
image_sync_progress.update                         401  403  403  403
# ImagesSyncProgressHandler
images_sync_progress.list                          401  403  403  403
images_sync_progress.create                        401  403  403  403
# AccountHandler
account.create_token                               401  yes  yes  403
account.delete_token                               401  yes  yes  403
account.list_tokens                                401  yes  yes  403
account.update_token_name                          401  yes  yes  403
# FileHandler
file.read                                          401  yes  yes  403
file.delete                                        401  yes  yes  403
# FilesHandler
files.list                                         400  yes  yes  403
files.create                                       401  yes  yes  403
files.delete                                       401  yes  yes  403
files.get                                          400  yes  yes  403
files.get_by_key                                   yes  yes  yes  403
# OidcProviderHandler
oidc_provider.read                                 401  403  yes  403
oidc_provider.update                               401  403  yes  403
oidc_provider.delete                               401  403  yes  403
# OidcProvidersHandler
oidc_providers.list                                401  403  yes  403
oidc_providers.create                              401  403  yes  403
oidc_providers.get_active                          401  403  yes  403
# SSHKeyHandler
ssh_key.read                                       401  yes  yes  403
ssh_key.delete                                     401  403  403  403
# SSHKeysHandler
ssh_keys.list                                      401  yes  yes  403
ssh_keys.create                                    401  yes  yes  403
ssh_keys.import                                    401  yes  yes  403
# SSLKeyHandler
ssl_key.read                                       401  403  403  403
ssl_key.delete                                     401  403  403  403
# SSLKeysHandler
ssl_keys.list                                      401  yes  yes  403
ssl_keys.create                                    401  yes  yes  403
# UserGroupHandler
user_group.read                                    401  403  yes  403
user_group.update                                  401  403  yes  403
user_group.delete                                  401  403  yes  403
user_group.add_entitlement                         401  403  yes  403
user_group.add_member                              401  403  yes  403
user_group.list_entitlements                       401  403  yes  403
user_group.list_members                            401  403  yes  403
user_group.remove_entitlement                      401  403  yes  403
user_group.remove_member                           401  403  yes  403
# UserGroupsHandler
user_groups.list                                   401  403  yes  403
user_groups.create                                 401  403  yes  403
# UserHandler
user.read                                          401  yes  yes  403
user.delete                                        401  403  yes  403
# UsersHandler
users.list                                         401  yes  yes  403
users.create                                       401  403  yes  403
users.whoami                                       401  yes  yes  403
# AgentConfigHandler
agent_config.read                                  401  403  403  403
# CommissioningScriptHandler
commissioning_script.read                          403  403  yes  403
commissioning_script.update                        403  403  yes  403
commissioning_script.delete                        403  403  yes  403
# CommissioningScriptsHandler
commissioning_scripts.list                         403  403  yes  403
commissioning_scripts.create                       403  403  yes  403
# EventsHandler
events.query                                       401  yes  yes  403
# LicenseKeyHandler
license_key.read                                   401  403  yes  403
license_key.update                                 401  403  yes  403
license_key.delete                                 401  403  yes  403
# LicenseKeysHandler
license_keys.list                                  401  403  yes  403
license_keys.create                                401  403  yes  403
# MaasHandler
maas.get_config                                    401  yes  yes  403
maas.set_config                                    401  403  yes  403
# NodeScriptHandler
node_script.read                                   401  yes  yes  403
node_script.update                                 401  403  yes  403
node_script.delete                                 401  403  yes  403
node_script.add_tag                                401  403  yes  403
node_script.download                               401  yes  yes  403
node_script.remove_tag                             401  403  yes  403
node_script.revert                                 401  403  yes  403
# NodeScriptsHandler
node_scripts.list                                  401  yes  yes  403
node_scripts.create                                401  403  yes  403
# NotificationHandler
notification.read                                  401  yes  yes  403
notification.update                                401  403  yes  403
notification.delete                                401  403  yes  403
notification.dismiss                               401  yes  yes  403
# NotificationsHandler
notifications.list                                 401  yes  yes  403
notifications.create                               401  403  yes  403
# PackageRepositoriesHandler
package_repositories.list                          401  yes  yes  403
package_repositories.create                        401  403  yes  403
# PackageRepositoryHandler
package_repository.read                            401  yes  yes  403
package_repository.update                          401  403  yes  403
package_repository.delete                          401  403  yes  403
# ResourcePoolHandler
resource_pool.read                                 401  yes  yes  403
resource_pool.update                               401  403  yes  403
resource_pool.delete                               401  403  yes  403
# ResourcePoolsHandler
resource_pools.list                                401  yes  yes  403
resource_pools.create                              401  403  yes  403
# TagHandler
tag.read                                           401  yes  yes  403
tag.update                                         401  403  yes  403
tag.delete                                         401  403  yes  403
tag.devices                                        401  yes  yes  403
tag.machines                                       401  yes  yes  403
tag.nodes                                          401  yes  yes  403
tag.rack_controllers                               401  yes  yes  403
tag.rebuild                                        401  403  yes  403
tag.region_controllers                             401  yes  yes  403
tag.update_nodes                                   401  403  yes  403
# TagsHandler
tags.list                                          401  yes  yes  403
tags.create                                        401  403  yes  403
# VersionHandler
version.read                                       yes  yes  yes  yes
# ZoneHandler
zone.read                                          401  yes  yes  403
zone.update                                        401  403  yes  403
zone.delete                                        401  403  yes  403
# ZonesHandler
zones.list                                         401  yes  yes  403
zones.create                                       401  403  yes  403
# PodHandler
pod.read                                           401  410  410  403
pod.update                                         401  410  410  403
pod.delete                                         401  410  410  403
pod.add_tag                                        401  410  410  403
pod.compose                                        401  410  410  403
pod.parameters                                     401  410  410  403
pod.refresh                                        401  410  410  403
pod.remove_tag                                     401  410  410  403
# PodsHandler
pods.list                                          401  410  410  403
pods.create                                        401  410  410  403
# VirtualMachineHandler
virtual_machine.read                               401  410  410  403
# VirtualMachinesHandler
virtual_machines.list                              401  410  410  403
# VmClusterHandler
vm_cluster.read                                    401  410  410  403
vm_cluster.update                                  401  410  410  403
vm_cluster.delete                                  401  410  410  403
# VmClustersHandler
vm_clusters.list                                   401  410  410  403
# VmHostHandler
vm_host.read                                       401  410  410  403
vm_host.update                                     401  410  410  403
vm_host.delete                                     401  410  410  403
vm_host.add_tag                                    401  410  410  403
vm_host.compose                                    401  410  410  403
vm_host.parameters                                 401  410  410  403
vm_host.refresh                                    401  410  410  403
vm_host.remove_tag                                 401  410  410  403
# VmHostsHandler
vm_hosts.list                                      401  410  410  403
vm_hosts.create                                    401  410  410  403
# IngotChangesHandler
ingot_changes.read                                 401  yes  yes  403
# IngotInstallTreeHandler
ingot_install_tree.read                            401  yes  yes  403
ingot_install_tree.update                          401  403  yes  403
ingot_install_tree.delete                          401  403  yes  403
# IngotInstallTreesHandler
ingot_install_trees.list                           401  yes  yes  403
ingot_install_trees.create                         401  403  yes  403
# IngotMachinePasswordHandler
ingot_machine_password.take                        401  403  403  403
# IngotMachinePreseedHandler
ingot_machine_preseed.read                         401  yes  yes  403
# IngotMachineTimelineHandler
ingot_machine_timeline.read                        401  yes  yes  403
# IngotPreseedTemplateHandler
ingot_preseed_template.read                        401  403  yes  403
ingot_preseed_template.update                      401  403  yes  403
ingot_preseed_template.delete                      401  403  yes  403
ingot_preseed_template.validate                    401  403  yes  403
# IngotPreseedTemplatesHandler
ingot_preseed_templates.list                       401  403  yes  403
`
