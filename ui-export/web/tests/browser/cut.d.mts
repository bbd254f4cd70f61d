export function cut<T>(doc: T, maxNodes: number, focus?: string[]): T;
