import "no-such-package-of-parity";
export const handler = () => 1;
