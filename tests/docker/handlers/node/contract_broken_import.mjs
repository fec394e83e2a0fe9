import "no-such-package-of-the-contract";
export const handler = () => null;
