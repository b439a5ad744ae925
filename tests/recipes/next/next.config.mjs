// Servers load the package as it is, from node_modules.
export default { serverExternalPackages: ["lethe"] };
