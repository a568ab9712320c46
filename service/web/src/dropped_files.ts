/** Files of a drop, those in folders too; and a folder as one archive. */

import { downloadZip } from "client-zip";

export interface FoundFile {
  /** Below the folder that was dropped or chosen. */
  path: string;
  file: File;
}

export interface Dropped {
  folder: string | null;
  files: FoundFile[];
}

/** Read what was dropped: one file, or a folder with all that is in it. Call it within the event: the browser forgets. */
export async function droppedFiles(items: DataTransferItemList): Promise<Dropped> {
  const entries = [...items].flatMap((item) => item.webkitGetAsEntry() ?? []);
  const [first] = entries;
  if (!first) return { folder: null, files: [] };
  if (entries.length === 1 && first.isFile) return { folder: null, files: await filesIn(first, "") };
  // several files or folders side by side: classes, say
  if (entries.length > 1) return { folder: "dropped", files: (await Promise.all(entries.map((entry) => filesIn(entry, "")))).flat() };
  return { folder: first.name, files: await filesOf(first as FileSystemDirectoryEntry, "") };
}

async function filesIn(entry: FileSystemEntry, above: string): Promise<FoundFile[]> {
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    return [{ path: above + entry.name, file }];
  }
  return filesOf(entry as FileSystemDirectoryEntry, `${above}${entry.name}/`);
}

async function filesOf(folder: FileSystemDirectoryEntry, above: string): Promise<FoundFile[]> {
  const reader = folder.createReader();
  const found: FileSystemEntry[] = [];
  // a reader gives a hundred at a time, and an empty list at the end
  for (;;) {
    const part = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (!part.length) break;
    found.push(...part);
  }
  const files: FoundFile[] = [];
  for (const entry of found) files.push(...(await filesIn(entry, above)));
  return files;
}

/** Pack files as on the command line: classes are sub-folders. The same files give the same size and name again. */
export async function packed(folder: string, files: readonly FoundFile[]): Promise<File> {
  const ordered = [...files].sort((a, b) => (a.path < b.path ? -1 : 1));
  const inside = ordered.map(({ path, file }) => ({ name: path, lastModified: new Date(file.lastModified), input: file }));
  const blob = await downloadZip(inside).blob();
  return new File([blob], `${folder}.zip`, { type: "application/zip", lastModified: Math.max(0, ...files.map(({ file }) => file.lastModified)) });
}
